//! TODO
use std::net::Ipv4Addr;
use std::process::Command;
pub struct Wires;
impl Wires {
    pub fn new(_: usize) -> Option<Self> {
        None
    }
    pub fn client_ip(&self, _: usize) -> Ipv4Addr {
        Ipv4Addr::LOCALHOST
    }
    pub fn peer_ip(&self, _: usize) -> Ipv4Addr {
        Ipv4Addr::LOCALHOST
    }
    pub fn command(&self, _: usize, program: &str) -> Command {
        Command::new(program)
    }
}
