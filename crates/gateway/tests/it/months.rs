//! Thirty days of calls with tokens of five minutes, on a clock that the test moves: nobody is asked to sign in.

use crate::harness::{Got, Start, personal};
use crate::kept_harness::{Door, Site};

const DAY: u64 = 24 * 60 * 60;

#[tokio::test]
async fn a_month_of_short_tokens_is_one_sign_in() {
    let site = Site::start().await;
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateway = Start::new(personal(&servers, "")).start().await;
    let door = Door::of(&gateway);
    door.sign_in(&site.provider).await;
    // Four to six minutes, evenly spread, and eight hours every night.
    let (mut time, mut calls) = (0, 0);
    for step in 0_u64.. {
        let night = step % 180 == 179;
        let pause = if night { DAY / 3 } else { 240 + (step * 37) % 121 };
        time += pause;
        if time > 30 * DAY {
            break;
        }
        site.advance(&[&gateway], pause);
        door.works().await;
        calls += 1;
        // In the last minute of its life, and later, a token is not used any more.
        assert_eq!(site.provider.counts().refreshed, calls, "at {time} s");
        assert_eq!(site.provider.shown(), site.provider.last());
    }
    assert!(calls > 5000, "{calls}");
    let counts = site.provider.counts();
    assert_eq!(
        (counts.refreshing, counts.exchanged, counts.reused),
        (calls, 1, 0)
    );
}

#[tokio::test]
async fn steady_calls_never_wait_for_a_renewal() {
    let site = Site::start().await;
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateway = Start::new(personal(&servers, "")).start().await;
    let door = Door::of(&gateway);
    door.sign_in(&site.provider).await;
    // Twenty seconds apart, for six hours: every tenth finds a token at four fifths of its life.
    let mut renewals = 0;
    for step in 1..=DAY / 4 / 20 {
        site.advance(&[&gateway], 20);
        let newest = site.provider.last();
        door.works().await;
        assert_eq!(
            site.provider.shown(),
            newest,
            "step {step}: what was in hand is shown"
        );
        if step % 10 == 0 {
            renewals += 1;
            // What the call before set going in the background may have looked at the time before we moved it.
            let renewed = |_: &Got| site.provider.counts().refreshed == renewals;
            door.until("renewed in the background", renewed).await;
            let newest = site.provider.last();
            door.until("the new token in use", |_| site.provider.shown() == newest)
                .await;
        }
    }
    let counts = site.provider.counts();
    assert_eq!(
        (counts.refreshing, counts.reused, counts.exchanged),
        (renewals, 0, 1)
    );
}
