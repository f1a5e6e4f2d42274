//! What a node says of the members.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value as Json;

use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Joining,
    Removed,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub node: String,
    pub peer: SocketAddr,
    state: State,
    is_alive: bool,
}

impl Member {
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }
}

#[derive(Debug)]
pub(super) struct Seen {
    /// Who says so.
    pub own: String,
    members: Vec<Member>,
}

impl Seen {
    pub fn of(status: &Json) -> Option<Self> {
        let member = |member: &Json| {
            Some(Member {
                node: member["node"].as_str()?.to_owned(),
                peer: member["peer"].as_str()?.parse().ok()?,
                state: match member["state"].as_str()? {
                    "up" => State::Up,
                    "joining" => State::Joining,
                    "removed" => State::Removed,
                    _ => return None,
                },
                is_alive: member["alive"].as_bool()?,
            })
        };
        Some(Self {
            own: status["node"].as_str()?.to_owned(),
            members: status["members"]
                .as_array()?
                .iter()
                .map(member)
                .collect::<Option<_>>()?,
        })
    }

    pub fn up(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_up())
    }

    pub fn ids(&self) -> BTreeSet<String> {
        self.up().map(|member| member.node.clone()).collect()
    }

    /// Those who are no members any more.
    pub fn removed(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == State::Removed)
    }

    /// Those who want to come in.
    pub fn joining(&self) -> impl Iterator<Item = &Member> {
        let joining = self.members.iter();
        joining.filter(|member| member.state == State::Joining && member.is_alive)
    }

    /// The node that stands there: the member, or else one that wants to be one. The one before may still be heard of.
    pub fn comes_from(&self, peer: SocketAddr, rng: &mut Rng) -> Option<Member> {
        let member = self.up().find(|member| member.peer == peer);
        let joining: Vec<&Member> = self.joining().filter(|member| member.peer == peer).collect();
        let any = || (!joining.is_empty()).then(|| *rng.pick(&joining));
        member.or_else(any).cloned()
    }

    /// The member that stood on the machine before.
    pub fn had_place_of(&self, peer: SocketAddr) -> Option<&Member> {
        self.up()
            .find(|member| member.peer.ip() == peer.ip() && member.peer != peer)
    }
}
