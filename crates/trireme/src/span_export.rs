//! Traces as flags and configurations ask for them: where the collector is, and how it is dialled.

use std::future::Future;
use std::os::linux::net::SocketAddrExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use client::Tasks;
use grpc::{Connection, Dial};
use tokio::net::UnixStream;
use traces::{Configuration, Counts, Endpoint, Tracer};

use crate::certificates::read;

/// Reads `--tracing-config-file`.
pub(crate) fn configuration(path: &Path) -> Result<Configuration> {
    let shown = || format!("--tracing-config-file: {}", path.display());
    let text = read(path).with_context(shown)?;
    let document = api::yaml::read(text.as_bytes()).map_err(|why| anyhow!(why));
    let document = document.with_context(shown)?;
    if let Some(twice) = document.duplicates.first() {
        return Err(anyhow!("strict decoding error: {twice}")).with_context(shown);
    }
    Configuration::parse(&document.value).map_err(|why| anyhow!(why)).with_context(shown)
}

/// A tracer whose spans are sent for as long as the tasks run.
pub(crate) fn start(
    configuration: &Configuration,
    resource: &[(&str, String)],
    tasks: &Tasks,
) -> Arc<Tracer> {
    let collector = Collector(configuration.endpoint.clone());
    let (tracer, sending) = Tracer::new(configuration, resource, collector);
    tasks.spawn("export of traces", sending);
    let counted = Arc::downgrade(&tracer);
    telemetry::add_process_source(move || {
        counted.upgrade().map_or_else(String::new, |t| figures(t.counts()))
    });
    tracer
}

/// Upstream has no figures of these.
fn figures(counts: Counts) -> String {
    let about = ("trireme_spans_total", "counter", "Spans that ended, by what became of them.");
    let figures = [("sent", counts.sent), ("dropped", counts.dropped)];
    telemetry::family(about, figures.map(|(what, n)| ([("status", what)], n as f64)))
}

struct Collector(Endpoint);

impl Dial for Collector {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async move {
            match &self.0 {
                Endpoint::Tcp(address) => {
                    let (host, port) = address.rsplit_once(':').ok_or("no port")?;
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    let port = port.parse().map_err(|_| "no port")?;
                    let stream = outgoing::connect(host, port).await;
                    Connection::open(stream.map_err(|e| e.to_string())?, None).await
                }
                Endpoint::Unix(path) => {
                    let stream = UnixStream::connect(path).await;
                    Connection::open(stream.map_err(|e| format!("{path}: {e}"))?, None).await
                }
                Endpoint::Abstract(name) => Connection::open(abstract_socket(name)?, None).await,
            }
        })
    }
}

/// Connecting to a socket of the machine itself never waits for a peer.
fn abstract_socket(name: &str) -> Result<UnixStream, String> {
    let connect = || -> std::io::Result<UnixStream> {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    };
    connect().map_err(|e| format!("@{name}: {e}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use client::Tasks;
    use grpc::server::{self, Methods};
    use traces::{ExportTraceServiceRequest, ExportTraceServiceResponse, Kind};

    use super::{configuration, start};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n";

    #[test]
    fn files_that_cannot_be_used_are_refused_with_their_names() {
        for (text, why) in [
            (String::new(), "no kind"),
            (format!("{HEAD}endpoint: http://x\n"), "unsupported scheme: http"),
            (format!("{HEAD}samplingRatePerMillion: -1\n"), "sampling rate must be positive"),
            (format!("{HEAD}{HEAD}"), "strict decoding error"),
            (format!("{HEAD}what: 1\n"), "unknown field \"what\""),
        ] {
            let file = file(&text);
            let told = format!("{:#}", configuration(file.path()).expect_err("refused"));
            assert!(told.contains(why), "{told}");
            assert!(told.contains(&file.path().display().to_string()), "{told}");
        }
        let none = configuration(std::path::Path::new("/nonexistent/traces.yaml"));
        assert!(format!("{:#}", none.expect_err("refused")).contains("--tracing-config-file"));
    }

    #[tokio::test]
    async fn a_collector_behind_a_socket_gets_what_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("otlp.sock");
        let got: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
        let (came, arrived) = (got.clone(), Arc::new(tokio::sync::Notify::new()));
        let tell = arrived.clone();
        let methods = Methods::new(1 << 20).unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            move |question: ExportTraceServiceRequest| {
                came.lock().expect("no panic").push(question);
                tell.notify_one();
                async { Ok(ExportTraceServiceResponse::default()) }
            },
        );
        let listener = server::bind(&path).expect("bound");
        let serving = grpc::Tasks::default();
        serving.spawn("collector", server::listen(listener, Arc::new(methods)));
        let file = file(&format!(
            "{HEAD}endpoint: unix://{}\nsamplingRatePerMillion: 1000000\n",
            path.display()
        ));
        let read = configuration(file.path()).expect("read");
        let tasks = Tasks::new();
        let tracer = start(&read, &[("service.name", "apiserver".into())], &tasks);
        // A full batch does not wait for more.
        for _ in 0..512 {
            drop(tracer.root("it", Kind::Internal));
        }
        tokio::time::timeout(Duration::from_secs(60), arrived.notified()).await.expect("it came");
        let sent = got.lock().expect("no panic")[0].clone();
        assert_eq!(sent.resource_spans[0].scope_spans[0].spans.len(), 512);
        tasks.shutdown().await;
    }
}
