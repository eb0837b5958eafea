//! image-fetcher's channel.

use super::{Golden, every, parse};
use skep_proto::fetch::{FetchOrder, FetchSays, FetchTold};
use skep_proto::{Reason, Refusal};

#[test]
fn bytes_of_image_fetcher_never_change() {
    let mut golden = Golden::new("image-fetcher");
    let order = || FetchOrder {
        url: parse("https://example.org/a.img"),
        sums: Some(parse("https://example.org/SUMS")),
        signed: true,
        signature: Some(parse("https://example.org/SUMS.sig")),
    };
    every!(golden, FetchTold {
        Begin(_) => FetchTold::Begin(order());
        Connected {} => FetchTold::Connected;
        Refused(_) => FetchTold::Refused(Refusal::new(Reason::PermissionDenied, "server"));
        Go {} => FetchTold::Go;
    });
    every!(golden, FetchSays {
        Connect { .. } => FetchSays::Connect { address: [192, 0, 2, 1].into(), port: 443 };
        Found { .. } => FetchSays::Found { length: 5000 };
        Done(_) => FetchSays::Done(Ok(()));
    });
    golden.check();
}
