//! How long things took.

use tidemark_proto::private::{self, Histogram, Measurements, RequestMeasurements};

use crate::{
    server::served::Served,
    volume::{BOUNDS_US, Latency, RequestKind, Requests},
};

pub(super) fn measure(served: &Served) -> Measurements {
    let measured = served.volume.measurements();
    Measurements {
        bounds_us: BOUNDS_US.to_vec(),
        requests: measured.requests.iter().map(requests).collect(),
        holds: Some(histogram(&measured.holds)),
    }
}

fn requests(measured: &Requests) -> RequestMeasurements {
    let kind = match measured.kind {
        RequestKind::Read => private::RequestKind::Read,
        RequestKind::Write => private::RequestKind::Write,
        RequestKind::Flush => private::RequestKind::Flush,
        RequestKind::Discard => private::RequestKind::Discard,
        RequestKind::WriteZeroes => private::RequestKind::WriteZeroes,
    };
    RequestMeasurements {
        kind: kind.into(),
        duration: Some(histogram(&measured.latency)),
        bytes: measured.bytes,
        failures: measured.failures,
    }
}

fn histogram(latency: &Latency) -> Histogram {
    Histogram {
        counts: latency.counts.to_vec(),
        sum_us: latency.sum_us,
    }
}
