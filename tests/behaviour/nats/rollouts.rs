//! A rollout whose steps are published in NATS.

use super::{seeded_with, started};
use crate::fixture::World;
use crate::rollouts::{Fixture, from_begin_to_end, rules};

#[test]
fn a_rollout_goes_through_nats_step_by_step_and_is_rolled_back_when_it_fails() {
    let world = World::start();
    let Some(nats) = seeded_with(&rules(&world), &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    from_begin_to_end(Fixture::by(node, &nats.publisher()));
}
