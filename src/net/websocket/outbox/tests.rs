//! Tests of the [`Outbox`].

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::shared::SharedStream;

fn outbox(frames: usize, bytes: u64) -> Outbox {
    Outbox::new(Limits { frames, bytes })
}

fn bytes(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn frames_taken_but_not_written_still_count() {
    let outbox = outbox(3, 100);
    let cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        outbox.send(bytes(10)).unwrap();
    }
    assert_eq!(outbox.send(bytes(10)), Err(SendError::Full));
    let mut batch = Batch::default();
    assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Ok(())));
    assert_eq!(batch.frames.len(), 3);
    assert_eq!(outbox.send(bytes(10)), Err(SendError::Full));
    batch.written(15);
    assert_eq!(batch.frames.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10]);
    assert!(batch.is_begun);
    assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Ok(())));
    outbox.send(bytes(10)).unwrap();
    assert_eq!(outbox.send(bytes(1)), Err(SendError::Full));
}

#[test]
fn bytes_are_limited_too_but_a_single_frame_always_fits() {
    let outbox = outbox(1000, 100);
    outbox.send(bytes(1_000)).unwrap();
    assert_eq!(outbox.send(bytes(1)), Err(SendError::Full));
}

#[test]
fn polls_take_up_to_their_limit_and_leave_the_rest() {
    let outbox = outbox(3, 100);
    let cx = Context::from_waker(Waker::noop());
    assert_eq!(outbox.poll_take(2, &cx), Poll::Pending);
    for length in 1..=3 {
        outbox.send(bytes(length)).unwrap();
    }
    outbox.end(End::Flushed);
    assert_eq!(outbox.poll_take(2, &cx), Poll::Ready(Ok([bytes(1), bytes(2)].into())));
    assert_eq!(outbox.waiting(), 1);
    assert_eq!(outbox.poll_take(2, &cx), Poll::Ready(Ok([bytes(3)].into())));
    assert_eq!(outbox.poll_take(2, &cx), Poll::Ready(Err(End::Flushed)));
}

#[test]
fn an_idle_task_is_woken_once_for_many_frames() {
    let outbox = outbox(1000, 1000);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut batch = Batch::default();
    assert_eq!(outbox.poll_batch(&mut batch, None, &Context::from_waker(&waker)), Poll::Pending);
    outbox.send(bytes(1)).unwrap();
    outbox.send(bytes(1)).unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_task_that_is_at_work_is_not_woken() {
    let outbox = outbox(1000, 1000);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert_eq!(outbox.poll_batch(&mut Batch::default(), None, &Context::from_waker(&waker)), Poll::Pending);
    outbox.attend();
    outbox.send(bytes(1)).unwrap();
    assert_eq!((wakes.0.load(Ordering::SeqCst), written(&outbox)), (0, b"x".to_vec()));
}

#[test]
fn an_end_is_immediate_or_waits_for_queued_frames() {
    let cx = Context::from_waker(Waker::noop());
    let outbox = outbox(1000, 1000);
    outbox.send(bytes(1)).unwrap();
    outbox.end(End::Flushed);
    assert_eq!(outbox.send(bytes(1)), Err(SendError::Closed));
    let mut batch = Batch::default();
    assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Ok(())));
    batch.written(1);
    assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Err(End::Flushed)));
    outbox.end(End::Now);
    assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Err(End::Now)));
}

/// What a task takes out now.
fn written(outbox: &Outbox) -> Vec<u8> {
    let mut batch = Batch::default();
    let _ = outbox.poll_batch(&mut batch, None, &Context::from_waker(Waker::noop()));
    batch.frames.iter().flatten().copied().collect()
}

fn send(outbox: &Outbox, text: &'static str) {
    for frame in text.split_inclusive(|_: char| true) {
        match frame.as_bytes()[0] {
            kind @ b'a'..=b'z' => outbox.queue_latest(kind.into(), Bytes::from(frame)).unwrap().wake(),
            kind @ b'0'..=b'9' => outbox.queue_volatile(kind.into(), Bytes::from(frame)).unwrap().map_or((), Queued::wake),
            _ => outbox.send(Bytes::from(frame)).unwrap(),
        }
    }
}

#[test]
fn the_newest_of_a_kind_stays_and_other_frames_keep_their_order() {
    let outbox = outbox(5, 100);
    send(&outbox, "aAbBaba");
    assert_eq!(outbox.waiting(), 4);
    assert_eq!(written(&outbox), b"ABba");
    let outbox = self::outbox(1000, 1000);
    send(&outbox, "1A1B21");
    assert_eq!(written(&outbox), b"1AB2", "the oldest volatile frame stays");
    send(&outbox, "1a");
    assert_eq!(written(&outbox), b"1a");
}

#[test]
fn a_thousand_replacements_take_the_room_of_one() {
    let outbox = outbox(2, 30);
    outbox.send(bytes(10)).unwrap();
    for _ in 0..1000 {
        outbox.queue_latest(1, bytes(20)).unwrap().wake();
    }
    assert_eq!(outbox.queue_latest(2, bytes(1)).map(Queued::wake), Err(SendError::Full));
    assert!(outbox.queue_volatile(2, bytes(1)).unwrap().is_none(), "dropped");
    assert_eq!((outbox.waiting(), outbox.state.lock().bytes), (2, 30));
    assert_eq!(written(&outbox).len(), 30);
    outbox.end(End::Now);
    assert_eq!(outbox.queue_latest(1, bytes(1)).map(Queued::wake), Err(SendError::Closed));
    assert!(matches!(outbox.queue_volatile(1, bytes(1)), Err(SendError::Closed)));
}

#[test]
fn frames_left_by_a_poll_can_still_be_replaced() {
    let outbox = outbox(1000, 1000);
    let cx = Context::from_waker(Waker::noop());
    let take = |most| match outbox.poll_take(most, &cx) {
        Poll::Ready(Ok(frames)) => frames.iter().flatten().copied().collect::<Vec<u8>>(),
        other => panic!("{other:?}"),
    };
    send(&outbox, "AabBc");
    assert_eq!(take(2), b"Aa");
    send(&outbox, "Cbca");
    assert_eq!(take(2), b"BC");
    assert_eq!(outbox.waiting(), 3);
    assert_eq!(take(usize::MAX), b"bca");
    assert_eq!(outbox.poll_take(1, &cx), Poll::Pending);
}

/// An outbox whose task is idle, how often it is woken, its stream, and the client's end.
async fn idle() -> (Outbox, Arc<Wakes>, SharedStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let stream = SharedStream::new(listener.accept().await.unwrap().0);
    std::future::poll_fn(|cx| stream.tcp().poll_write_ready(cx)).await.unwrap();
    let (outbox, wakes) = (outbox(1000, 1_000_000), Arc::new(Wakes::default()));
    let waker = Waker::from(Arc::clone(&wakes));
    let polled = outbox.poll_batch(&mut Batch::default(), Some(&stream.writer()), &Context::from_waker(&waker));
    assert_eq!(polled, Poll::Pending);
    (outbox, wakes, stream, client)
}

#[tokio::test]
async fn deferred_frames_are_written_together_without_the_task() {
    let (outbox, wakes, _stream, mut client) = idle().await;
    assert!(outbox.queue(Bytes::from("one")).unwrap().defer());
    assert!(!outbox.queue(Bytes::from("two")).unwrap().defer(), "the first caller writes both");
    outbox.flush();
    let mut received = [0; 6];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!((&received, outbox.backlog(), wakes.0.load(Ordering::SeqCst)), (b"onetwo", (0, 0), 0));
    assert!(!outbox.queue(Bytes::from("three")).unwrap().defer(), "two frames at once are a rush");
    assert_eq!((outbox.waiting(), wakes.0.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn frames_that_come_together_are_no_rush() {
    let (outbox, wakes, _stream, mut client) = idle().await;
    for _ in 0..3 {
        assert!(outbox.queue_all(["one", "two"].map(Bytes::from)).unwrap().defer());
        outbox.flush();
    }
    let mut received = [0; 18];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!((&received, outbox.backlog(), wakes.0.load(Ordering::SeqCst)), (b"onetwoonetwoonetwo", (0, 0), 0));
}

#[tokio::test]
async fn a_task_that_looks_first_writes_what_was_deferred() {
    let (outbox, _, _stream, client) = idle().await;
    assert!(outbox.queue(Bytes::from("one")).unwrap().defer());
    assert_eq!(written(&outbox), b"one");
    outbox.send(Bytes::from("two")).unwrap();
    outbox.flush();
    assert_eq!((outbox.waiting(), client.try_read(&mut [0]).unwrap_err().kind()), (2, ErrorKind::WouldBlock));
}

#[tokio::test]
async fn what_a_socket_does_not_accept_is_left_to_the_task() {
    let (outbox, wakes, _stream, mut client) = idle().await;
    let mut sent = Vec::new();
    for byte in (0..=u8::MAX).cycle() {
        let frame = vec![byte; 50_000];
        sent.extend_from_slice(&frame);
        assert!(outbox.queue(frame.into()).unwrap().defer());
        outbox.flush();
        if outbox.waiting() > 0 {
            break;
        }
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let rest = written(&outbox);
    let mut received = vec![0; sent.len() - rest.len()];
    client.read_exact(&mut received).await.unwrap();
    assert!([received, rest].concat() == sent);
}

#[tokio::test]
async fn frames_for_a_stream_that_others_cannot_write_to_wake_the_task() {
    let (outbox, wakes, stream, _client) = idle().await;
    drop(stream);
    assert!(outbox.queue(Bytes::from("one")).unwrap().defer());
    outbox.flush();
    assert_eq!((outbox.waiting(), wakes.0.load(Ordering::SeqCst)), (1, 1), "the stream is closed");
    let polled = self::outbox(1, 1);
    assert_eq!(polled.poll_take(1, &Context::from_waker(Waker::noop())), Poll::Pending);
    assert!(!polled.queue(Bytes::from("one")).unwrap().defer(), "a poll carries the client, or TLS");
}

proptest::proptest! {
    /// Compares with a plain list from which older frames of a kind are removed.
    #[test]
    fn any_mix_matches_a_plain_list(steps in "[a-cA-C0-2|]{0,60}") {
        let outbox = outbox(1000, 1000);
        let (mut expected, mut list) = (Vec::new(), Vec::<u8>::new());
        let mut seen = Vec::new();
        let cx = Context::from_waker(Waker::noop());
        for step in steps.bytes() {
            match step {
                b'|' => {
                    let taken = list.len().min(2);
                    expected.extend(list.drain(..taken));
                    if let Poll::Ready(Ok(frames)) = outbox.poll_take(2, &cx) {
                        seen.extend(frames.iter().flatten().copied());
                    }
                }
                b'a'..=b'z' => {
                    list.retain(|other| *other != step);
                    list.push(step);
                    outbox.queue_latest(step.into(), Bytes::copy_from_slice(&[step])).unwrap().wake();
                }
                b'0'..=b'9' => {
                    if !list.contains(&step) {
                        list.push(step);
                    }
                    if let Some(queued) = outbox.queue_volatile(step.into(), Bytes::copy_from_slice(&[step])).unwrap() {
                        queued.wake();
                    }
                }
                _ => {
                    list.push(step);
                    outbox.send(Bytes::copy_from_slice(&[step])).unwrap();
                }
            }
            proptest::prop_assert_eq!(outbox.waiting(), list.len());
        }
        expected.extend(list);
        seen.extend(written(&outbox));
        proptest::prop_assert_eq!(seen, expected);
    }
}
