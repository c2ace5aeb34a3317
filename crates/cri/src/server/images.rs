//! The image service.

use std::sync::Arc;

use ::runtime::ImageService;
use ::runtime::cri::*;
use grpc::Code;
use grpc::server::{Methods, Status};

use super::lists::parts;
use super::refused;

/// Adds a method that asks `images`.
macro_rules! ask {
    ($methods:expr, $images:expr, $name:literal, |$to:ident, $question:ident: $type:ty| $work:expr) => {{
        let images = $images.clone();
        $methods.unary(concat!("/runtime.v1.ImageService/", $name), move |$question: $type| {
            let $to = images.clone();
            async move { $work }
        })
    }};
}

/// The image that a question is about.
fn named(image: Option<ImageSpec>) -> Result<ImageSpec, Status> {
    let named = image.filter(|image| !image.image.is_empty());
    named.ok_or_else(|| Status::new(Code::InvalidArgument, "missing required image"))
}

pub(super) fn add(methods: Methods, images: &Arc<dyn ImageService>) -> Methods {
    let methods = ask!(methods, images, "ListImages", |to, asked: ListImagesRequest| {
        let images = to.list_images(asked.filter.unwrap_or_default()).await.map_err(refused)?;
        Ok(ListImagesResponse { images })
    });
    let methods = ask!(methods, images, "ImageStatus", |to, asked: ImageStatusRequest| {
        to.image_status(named(asked.image)?, asked.verbose).await.map_err(refused)
    });
    let methods = ask!(methods, images, "PullImage", |to, asked: PullImageRequest| {
        let image = Some(named(asked.image.clone())?);
        let image_ref =
            to.pull_image(PullImageRequest { image, ..asked }).await.map_err(refused)?;
        Ok(PullImageResponse { image_ref })
    });
    let methods = ask!(methods, images, "RemoveImage", |to, asked: RemoveImageRequest| {
        to.remove_image(named(asked.image)?).await.map_err(refused)?;
        Ok(RemoveImageResponse {})
    });
    let methods = ask!(methods, images, "ImageFsInfo", |to, _asked: ImageFsInfoRequest| {
        to.image_fs_info().await.map_err(refused)
    });
    let images = images.clone();
    methods.streaming("/runtime.v1.ImageService/StreamImages", move |asked: ListImagesRequest| {
        let images = images.clone();
        async move {
            let all = images.list_images(asked.filter.unwrap_or_default()).await;
            Ok(parts(all.map_err(refused)?, |images| ListImagesResponse { images }))
        }
    })
}
