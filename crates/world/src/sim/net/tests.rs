use std::thread;

use super::*;
use crate::{Net as _, Timestamp};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const SECOND: Duration = Duration::from_secs(1);

struct Pair {
    clock: Clock,
    net: Net,
    listener: Box<dyn Listener>,
    caller: Box<dyn Stream>,
    answerer: Box<dyn Stream>,
}

/// A connection from host A to a listener on host B.
fn pair_of_hosts() -> Pair {
    let clock = Clock::new(Timestamp::default());
    let net = Net::new(&clock, A);
    let listener = net.at(B).listen(SocketAddr::new(B, 0)).unwrap();
    let caller = net.connect(listener.address(), SECOND).unwrap();
    let answerer = listener.accept().unwrap();
    Pair {
        clock,
        net,
        listener,
        caller,
        answerer,
    }
}

fn read_to_end(stream: &mut dyn Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Starts a blocked call and lets simulated time pass until it returns.
fn pass_time<T: Send>(clock: &Clock, call: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let call = scope.spawn(call);
        while !call.is_finished() {
            clock.advance(SECOND);
            thread::yield_now();
        }
        call.join().unwrap()
    })
}

#[test]
fn bytes_arrive_in_order_and_the_stream_ends_after_the_last() {
    let mut pair = pair_of_hosts();
    pair.caller.write_all(b"one ").unwrap();
    pair.caller.write_all(b"two").unwrap();
    pair.answerer.write_all(b"answer").unwrap();
    assert_eq!(pair.caller.peer(), pair.listener.address());
    assert_eq!(pair.answerer.peer().ip(), A);
    let mut answer = [0; 6];
    pair.caller.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    drop(pair.caller);
    assert_eq!(read_to_end(&mut *pair.answerer), b"one two");
    let error = pair.answerer.write_all(b"late").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn connecting_is_refused_where_nobody_listens() {
    let pair = pair_of_hosts();
    let address = pair.listener.address();
    let twice = pair.net.at(B).listen(address).unwrap_err();
    assert_eq!(twice.kind(), io::ErrorKind::AddrInUse);
    drop(pair.listener);
    let error = pair.net.connect(address, SECOND).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_partition_holds_bytes_back_until_it_heals() {
    let mut pair = pair_of_hosts();
    pair.net.partition(B, A);
    pair.caller.write_all(b"held").unwrap();
    pair.answerer.set_read_timeout(SECOND).unwrap();
    let answerer = &mut pair.answerer;
    let error = pass_time(&pair.clock, || answerer.read(&mut [0; 4]).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let address = pair.listener.address();
    let error = pair.net.connect(address, SECOND).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    pair.net.heal(A, B);
    drop(pair.caller);
    assert_eq!(read_to_end(&mut *pair.answerer), b"held");
}

#[test]
fn a_cut_resets_both_sides_and_loses_what_was_under_way() {
    let mut pair = pair_of_hosts();
    pair.caller.write_all(b"lost").unwrap();
    pair.net.cut(A, B);
    let reset = io::ErrorKind::ConnectionReset;
    assert_eq!(pair.answerer.read(&mut [0; 4]).unwrap_err().kind(), reset);
    assert_eq!(pair.caller.write(b"more").unwrap_err().kind(), reset);
    pair.net.connect(pair.listener.address(), SECOND).unwrap();
}

#[test]
fn the_end_of_a_host_does_not_touch_what_listens_there_in_its_next_life() {
    let mut pair = pair_of_hosts();
    let address = pair.listener.address();
    pair.net.end(B);
    let error = pair.listener.accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let error = pair.caller.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let next = pair.net.at(B).listen(address).unwrap();
    drop(pair.listener);
    pair.net.connect(address, SECOND).unwrap();
    next.accept().unwrap();
}

#[test]
fn a_writer_nobody_reads_from_waits_and_times_out() {
    let mut pair = pair_of_hosts();
    pair.caller.write_all(&[0; PIPE_LEN_MAX]).unwrap();
    pair.caller.set_write_timeout(SECOND).unwrap();
    let caller = &mut pair.caller;
    let error = pass_time(&pair.clock, || caller.write(b"1").unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    pair.answerer.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(pair.caller.write(b"1").unwrap(), 1);
    pair.caller.set_read_timeout(Duration::ZERO).unwrap_err();
}

#[test]
fn a_blocked_reader_wakes_when_bytes_come() {
    let mut pair = pair_of_hosts();
    let read = thread::spawn(move || {
        let mut bytes = [0; 2];
        pair.answerer.read_exact(&mut bytes).unwrap();
        bytes
    });
    pair.caller.write_all(b"hi").unwrap();
    assert_eq!(&read.join().unwrap(), b"hi");
}

#[test]
fn shutting_down_ends_both_directions() {
    let mut pair = pair_of_hosts();
    pair.caller.write_all(b"last").unwrap();
    pair.caller.shut_down().unwrap();
    assert_eq!(pair.caller.read(&mut [0; 1]).unwrap(), 0);
    pair.caller.write(b"x").unwrap_err();
    assert_eq!(read_to_end(&mut *pair.answerer), b"last");
    pair.answerer.write(b"x").unwrap_err();
}

#[test]
fn both_sides_gone_leave_nothing_behind() {
    let pair = pair_of_hosts();
    drop(pair.caller);
    drop(pair.answerer);
    assert!(pair.net.shared.lock().pipes.is_empty());
}
