//! The seats of a role: a worker with groups has one for each process of each group, any other host has one.

use crate::config::Settings;
use crate::crash::Board;
use crate::process::Seat;
use crate::process::control::Role;
use cardcage_protocol::InstanceId;

/// What a seat's supervisor is made of.
pub(super) struct Place {
    pub(super) seat: Option<Seat>,
    /// What callers, records and lists know it by. One seat has the host's.
    pub(super) instance: InstanceId,
    pub(super) boards: [Board; 2],
}

/// The seats that these settings ask for.
pub(super) fn seats(role: Role, settings: &Settings) -> Vec<Option<Seat>> {
    if role == Role::Api || settings.groups.is_empty() {
        return vec![None];
    }
    let of = |group: &crate::config::Group| {
        let name = group.name.clone();
        (1..=group.processes).map(move |process| Some(Seat { group: name.clone(), process }))
    };
    settings.groups.iter().flat_map(of).collect()
}

/// The name of a seat's group.
pub(super) fn group(seat: &Option<Seat>) -> Option<&str> {
    seat.as_ref().map(|seat| seat.group.as_str())
}
