//! A loopback port that stays ours while nobody listens on it.
//!
//! A server that is killed and started again must come back on the same port, and "find a free port, close it,
//! start the server" lets a parallel test take it in between. So a socket is bound to the port and never listens:
//! the kernel gives the port to nobody who asks for any free one, and still lets a server that sets
//! `SO_REUSEADDR`, as nearly all do, bind and listen on it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use crate::{Error, Result};

/// A reserved loopback port; free for others again when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: OwnedFd,
}

impl Port {
    /// Reserves any free port of 127.0.0.1.
    ///
    /// # Errors
    /// The machine has no free port or no free file descriptor.
    pub fn reserve() -> Result<Self> {
        let failed = || Error::doing("cannot reserve a loopback port");
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed())?;
        sockopt::set_socket_reuseaddr(&socket, true).map_err(failed())?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
        let address = SocketAddr::try_from(getsockname(&socket).map_err(failed())?).map_err(failed())?;
        Ok(Self { number: address.port(), _held: socket })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:<number>`, as options such as `api.listen` take it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_port_can_be_listened_on_again_and_again() {
        let port = Port::reserve().unwrap();
        for _ in 0..3 {
            let listener = std::net::TcpListener::bind(port.address()).unwrap();
            let client = std::net::TcpStream::connect(port.address()).unwrap();
            drop((listener.accept().unwrap(), client));
        }
    }

    #[test]
    fn reserved_ports_are_all_different() {
        let ports: Vec<_> = (0..200).map(|_| Port::reserve().unwrap()).collect();
        let numbers: std::collections::BTreeSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
