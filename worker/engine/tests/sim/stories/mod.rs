//! The stories of the product, as timelines.

mod breaker;
mod flow;
mod link;
mod pace;

use crate::sts::Sts;
use crate::world::World;
use dub_engine::{Resolution, SessionConfig};
use std::time::Duration;

const SEGMENT: Duration = Duration::from_secs(6);

fn world(sts: Sts) -> World<Sts> {
    World::scripted(&SessionConfig::default(), sts)
}

fn dubbed(world: &World<Sts>) -> usize {
    let is_dubbed = |(_, with): &&(u64, Resolution)| matches!(with, Resolution::Dubbed { .. });
    world.reference.resolved.iter().filter(is_dubbed).count()
}

fn reasons(world: &World<Sts>) -> Vec<&'static str> {
    let label = |(_, with): &(u64, Resolution)| match with {
        Resolution::Dubbed { .. } => "dubbed",
        Resolution::Original(reason) => reason.label(),
    };
    world.reference.resolved.iter().map(label).collect()
}

/// Runs, keeps the timeline as a snapshot, and hands the world back for questions.
fn tell(name: &str, mut world: World<Sts>) -> World<Sts> {
    world.run();
    world.reference.finish();
    let timeline = world.timeline.clone().unwrap_or_default().join("\n");
    insta::assert_snapshot!(name, timeline);
    world
}
