//! What identifies a span across processes: W3C Trace Context (https://www.w3.org/TR/trace-context/).

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the ids.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with what vendors add, which is passed on as it came.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest `tracestate` that is passed on, in bytes (the least that W3C asks for).
const STATE_MAX: usize = 512;
const SAMPLED: u8 = 1;

/// A span's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    /// Whether whoever began the trace has it recorded.
    pub sampled: bool,
    pub state: String,
}

impl SpanContext {
    /// Of the sender of a request; absent if it names none, or a malformed one.
    pub fn of_headers(headers: &HeaderMap) -> Option<SpanContext> {
        let parent = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut context = SpanContext::parse(parent)?;
        let mut states = headers.get_all(TRACESTATE).iter().filter_map(|state| state.to_str().ok());
        if let (Some(state), None) = (states.next(), states.next())
            && state.len() <= STATE_MAX
        {
            state.clone_into(&mut context.state);
        }
        Some(context)
    }

    /// `version-trace-span-flags`, in lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<SpanContext> {
        let mut parts = text.split('-');
        let [version] = digits::<1>(parts.next()?)?;
        let (trace, span) = (digits::<16>(parts.next()?)?, digits::<8>(parts.next()?)?);
        let [flags] = digits::<1>(parts.next()?)?;
        // Later versions may add parts; version 0 has none, and 255 is no version.
        if version == u8::MAX || version == 0 && parts.next().is_some() {
            return None;
        }
        if trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(SpanContext { trace, span, sampled: flags & SAMPLED != 0, state: String::new() })
    }

    /// The header's value.
    pub fn traceparent(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), u8::from(self.sampled))
    }

    /// Says in headers that this span sends the request.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(parent) = HeaderValue::from_str(&self.traceparent()) {
            headers.insert(TRACEPARENT, parent);
        }
        match HeaderValue::from_str(&self.state) {
            Ok(state) if !self.state.is_empty() => drop(headers.insert(TRACESTATE, state)),
            _ => drop(headers.remove(TRACESTATE)),
        }
    }
}

fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{SpanContext, TRACEPARENT, TRACESTATE};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_the_wire() {
        let read = SpanContext::parse(PARENT).expect("valid");
        assert!(read.sampled);
        assert_eq!(read.traceparent(), PARENT);
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1,b=2"));
        let read = SpanContext::of_headers(&headers).expect("valid");
        let mut sent = HeaderMap::new();
        read.write(&mut sent);
        assert_eq!(sent, headers);
        let later =
            SpanContext::parse(&format!("01{}-more", &PARENT[2..])).expect("a later version");
        assert_eq!(later.trace, read.trace);
    }

    #[test]
    fn malformed_contexts_are_none() {
        let zero = "0".repeat(32);
        for text in [
            "",
            "00",
            &PARENT[..PARENT.len() - 1],
            &format!("{PARENT}-more"),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &format!("00-{zero}-00f067aa0ba902b7-01"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ] {
            assert_eq!(SpanContext::parse(text), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.insert(TRACESTATE, "x".repeat(600).parse().expect("a value"));
        assert_eq!(
            SpanContext::of_headers(&headers).expect("valid").state,
            "",
            "too long to pass on"
        );
    }
}
