//! OpenSSH and sudo as they are on a host, seen through our client.

#[path = "ssh/fix.rs"]
mod fix;
#[path = "ssh/fleet.rs"]
mod fleet;
#[path = "ssh/link.rs"]
mod link;
#[path = "ssh/login.rs"]
mod login;
#[path = "ssh/server.rs"]
mod server;
#[path = "ssh/sudo.rs"]
mod sudo;

use libtest_mimic::Trial;

pub(crate) use login::login_for_a_trace;

pub(crate) fn tests() -> Vec<Trial> {
    [
        login::tests(),
        sudo::tests(),
        link::tests(),
        fix::tests(),
        fleet::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
