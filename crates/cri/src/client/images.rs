//! The image service.

use ::runtime::cri::*;
use ::runtime::{ImageService, Result};
use async_trait::async_trait;

use super::{Client, PULL};

#[async_trait]
impl ImageService for Client {
    async fn list_images(&self, filter: ImageFilter) -> Result<Vec<Image>> {
        let asked = ListImagesRequest { filter: Some(filter) };
        let answer: ListImagesResponse =
            self.ask("/runtime.v1.ImageService/ListImages", &asked).await?;
        Ok(answer.images)
    }

    async fn image_status(&self, image: ImageSpec, verbose: bool) -> Result<ImageStatusResponse> {
        let asked = ImageStatusRequest { image: Some(image), verbose };
        self.ask("/runtime.v1.ImageService/ImageStatus", &asked).await
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<String> {
        let answer: PullImageResponse =
            self.wait("/runtime.v1.ImageService/PullImage", &request, PULL).await?;
        Ok(answer.image_ref)
    }

    async fn remove_image(&self, image: ImageSpec) -> Result<()> {
        let asked = RemoveImageRequest { image: Some(image) };
        let _: RemoveImageResponse =
            self.ask("/runtime.v1.ImageService/RemoveImage", &asked).await?;
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        self.ask("/runtime.v1.ImageService/ImageFsInfo", &ImageFsInfoRequest {}).await
    }
}
