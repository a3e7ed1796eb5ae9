//! A service that can be switched off and on: an address on loopback that leads to another one, or refuses connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Switch {
    address: SocketAddr,
    target: SocketAddr,
    /// Connections that were made; they are cut when it is switched off.
    lines: Arc<Mutex<Vec<TcpStream>>>,
    /// Set while it is on.
    on: Mutex<Option<Arc<Mutex<bool>>>>,
}

impl Switch {
    /// Switched off.
    pub(crate) fn new(target: SocketAddr) -> Switch {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        Switch { address, target, lines: Arc::default(), on: Mutex::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn on(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        let open = Arc::new(Mutex::new(true));
        *self.on.lock().unwrap() = Some(Arc::clone(&open));
        let (target, lines) = (self.target, Arc::clone(&self.lines));
        std::thread::spawn(move || {
            for line in listener.incoming().map_while(Result::ok) {
                let open = open.lock().unwrap();
                if !*open {
                    return;
                }
                let far = TcpStream::connect(target).unwrap();
                lines.lock().unwrap().extend([line.try_clone().unwrap(), far.try_clone().unwrap()]);
                pump(line.try_clone().unwrap(), far.try_clone().unwrap());
                pump(far, line);
            }
        });
    }

    pub(crate) fn off(&self) {
        if let Some(open) = self.on.lock().unwrap().take() {
            *open.lock().unwrap() = false;
            // Wakes the listener, so that it goes.
            drop(TcpStream::connect(self.address));
        }
        for line in self.lines.lock().unwrap().drain(..) {
            drop(line.shutdown(Shutdown::Both));
        }
        // It is gone when nobody answers any more.
        crate::bin::wait_for("the switch is off", 10, || TcpStream::connect(self.address).is_err().then_some(()));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n) = from.read(&mut buffer)
            && n > 0
            && to.write_all(&buffer[..n]).is_ok()
        {}
        drop(to.shutdown(Shutdown::Write));
    });
}
