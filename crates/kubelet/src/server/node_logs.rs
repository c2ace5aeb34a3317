//! `/logs/`: the files of the node's own services, as a list and one by one.
//!
//! Links are not followed: whoever can write there names nothing outside.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use client::Tasks;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Response, answer};
use crate::beneath::Dir;
use crate::kubelet::Shared;

/// Bytes read at once, and chunks that wait for a slow client.
const CHUNK: usize = 64 << 10;
const QUEUE: usize = 4;
/// Most names in one list.
const NAMES_MAX: usize = 10_000;

enum Found {
    List(Vec<String>),
    File(std::fs::File),
}

fn find(root: &std::path::Path, path: &str) -> io::Result<Found> {
    let path = PathBuf::from(path);
    let root = Dir::root(root)?;
    let dir = match root.open(&path) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return root.file(&path).map(Found::File);
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for name in dir.names()?.into_iter().take(NAMES_MAX) {
        let is_dir = dir.open(&name).is_ok();
        let name = name.to_string_lossy().into_owned();
        names.push(if is_dir { name + "/" } else { name });
    }
    names.sort();
    Ok(Found::List(names))
}

fn escaped(text: &str) -> String {
    let replace = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&#34;".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(replace).collect()
}

/// A list in the form that Go's file server has.
fn list(names: &[String]) -> Response {
    let line = |name: &String| format!("<a href=\"{0}\">{0}</a>\n", escaped(name));
    let lines: String = names.iter().map(line).collect();
    let mut response = answer(200, format!("<pre>\n{lines}</pre>\n"));
    let html = http::HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, html);
    response
}

fn file(tasks: &Tasks, file: std::fs::File) -> Response {
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Only what is there now: a file that grows has an end, too.
    let length = file.metadata().map_or(0, |meta| meta.len());
    tasks.spawn("node log", async move {
        let work = move || {
            let mut file = file.take(length);
            let mut chunk = vec![0; CHUNK];
            loop {
                let sent = match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(n) => sender.blocking_send(Ok(Bytes::copy_from_slice(&chunk[..n]))),
                    Err(error) => {
                        // The answer is cut off, which is all there is to tell.
                        let _gone = sender.blocking_send(Err(error));
                        return;
                    }
                };
                if sent.is_err() {
                    return;
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::debug!(%error, "node log");
        }
    });
    let stream = futures::stream::unfold(
        receiver,
        |mut receiver: mpsc::Receiver<io::Result<Bytes>>| async {
            receiver.recv().await.map(|chunk| (chunk.map(Frame::data), receiver))
        },
    );
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

pub(super) async fn serve(shared: &Arc<Shared>, tasks: &Tasks, path: String) -> Response {
    let root = shared.config.node_log_dir.clone();
    let found = tokio::task::spawn_blocking(move || find(&root, &path)).await;
    match found {
        Ok(Ok(Found::List(names))) => list(&names),
        Ok(Ok(Found::File(found))) => file(tasks, found),
        Ok(Err(error)) => {
            tracing::debug!(%error, "node log not served");
            answer(404, "404 page not found")
        }
        Err(error) => answer(500, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_lists_are_found_and_links_and_ways_out_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(logs.join("pods")).unwrap();
        std::fs::write(logs.join("kubelet.log"), "hello").unwrap();
        std::fs::write(dir.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink("../secret", logs.join("link")).unwrap();
        let names = |path: &str| match find(&logs, path).unwrap() {
            Found::List(names) => names.join(" "),
            Found::File(_) => panic!("a file"),
        };
        assert_eq!((names(""), names("pods")), ("kubelet.log link pods/".into(), String::new()));
        let mut text = String::new();
        let Found::File(mut file) = find(&logs, "kubelet.log").unwrap() else { panic!("a list") };
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        for bad in ["link", "../secret", "pods/../../secret", "none", "/etc/passwd"] {
            assert!(find(&logs, bad).is_err(), "{bad}");
        }
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&#34;x&#34;&gt;&amp;");
    }
}
