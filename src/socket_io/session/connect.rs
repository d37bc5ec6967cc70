//! How a client gets into the hub: with a new session, or with one that it resumes, of this node or of another one.
//!
//! Input: CONNECT. Output: its answer, and a client that the hub knows.

use std::borrow::Cow;

use serde::Deserialize;
use socketioxide_core::Value;

use super::{CONNECTED, Inbound, Session, State};
use crate::client::Client;
use crate::event::{CloseReason, SocketId};
use crate::hub::Return;
use crate::net::websocket::End;
use crate::socket_io::version::EngineVersion;

/// The CONNECT payload of a client that wants to resume its session.
#[derive(Deserialize)]
struct ComesBack<'a> {
    #[serde(borrow)]
    pid: Cow<'a, str>,
    /// Offset of the last event the client received, if any.
    #[serde(borrow, default)]
    offset: Option<Cow<'a, str>>,
}

impl Session {
    /// Connects the client. CONNECT has to be sent before anything that the hub pushes.
    pub(super) fn connect(&self, inbound: &mut Inbound, data: Option<&Value>) -> Result<(), CloseReason> {
        if self.0.version == EngineVersion::V3 {
            self.send(CONNECTED)?;
            self.joins_hub(inbound);
            return Ok(());
        }
        let data = data.and_then(Value::as_str).map_or("", |data| &**data);
        let shared = &self.0.shared;
        let again = serde_json::from_str::<ComesBack<'_>>(data).ok();
        let offset = again.as_ref().and_then(|again| again.offset.as_deref());
        if let Some((pids, again)) = shared.pids.as_ref().zip(again.as_ref())
            && let Some(id) = pids.read(&again.pid, shared.hub.session_key())
            && !self.0.client.has_id()
        {
            match shared.hub.recover(id, offset, || self.goes_on(id, &again.pid)) {
                Return::Back => {
                    self.is_in(inbound);
                    return Ok(());
                }
                Return::Afresh => {}
                Return::Elsewhere => {
                    inbound.state = State::Waiting;
                    let (session, pid, offset) = (self.clone(), again.pid.clone().into_owned(), offset.map(str::to_owned));
                    shared.connections.spawn(async move { session.find(id, &pid, offset.as_deref()).await });
                    return Ok(());
                }
            }
        }
        self.starts_afresh(inbound, offset)
    }

    /// Starts a new session. `offset` is that of the last event the client received before, if any.
    fn starts_afresh(&self, inbound: &mut Inbound, offset: Option<&str>) -> Result<(), CloseReason> {
        let (id, shared) = (self.id(), &self.0.shared);
        let pid = shared.pids.as_ref().map(|pids| pids.write(id, shared.hub.session_key()));
        self.say_connected(id, pid.as_deref())?;
        self.is_in(inbound);
        shared.hub.connect_afresh(self.0.client.clone(), offset);
        Ok(())
    }

    /// Resumes session `id` on this connection.
    fn goes_on(&self, id: SocketId, pid: &str) -> Client {
        self.0.client.take_id(id);
        // An error here (the outbox cannot take the frame) shows up again with the next frame.
        let _ = self.say_connected(id, Some(pid));
        self.0.client.clone()
    }

    /// Looks for the session on other nodes and resumes it or starts a new one; then handles the packets held meanwhile.
    async fn find(self, id: SocketId, pid: &str, offset: Option<&str>) {
        let hub = &self.0.shared.hub;
        let found = hub.find(id, offset).await;
        let unwanted = {
            let mut inbound = self.inbound();
            if inbound.state == State::Waiting {
                if found.is_some_and(|found| hub.adopt(id, found, offset, || self.goes_on(id, pid))) {
                    self.is_in(&mut inbound);
                } else if self.starts_afresh(&mut inbound, offset).is_err() {
                    return self.outbox().end(End::Now);
                }
                for packet in std::mem::take(&mut inbound.held) {
                    if self.packet(&mut inbound, packet).is_err() {
                        return self.outbox().end(End::Now);
                    }
                }
                None
            } else {
                found
            }
        };
        if let Some(found) = unwanted {
            hub.put_back(id, found).await;
        }
    }

    /// `40{"sid":"…","pid":"…"}`; with the `pid` the client can resume the session.
    fn say_connected(&self, id: SocketId, pid: Option<&str>) -> Result<(), CloseReason> {
        match pid {
            Some(pid) => self.send_text(&format!(r#"40{{"sid":"{id}","pid":"{pid}"}}"#)),
            None => self.send_text(&format!(r#"40{{"sid":"{id}"}}"#)),
        }
    }

    pub(super) fn joins_hub(&self, inbound: &mut Inbound) {
        self.is_in(inbound);
        self.0.shared.hub.connect(self.0.client.clone());
    }

    /// Marks the client as registered with the hub.
    fn is_in(&self, inbound: &mut Inbound) {
        inbound.state = State::Connected;
        // A polling Engine.IO 3 client is connected before its second request: it keeps its deadline until then.
        if !inbound.is_fresh {
            inbound.deadline = None;
        }
    }
}
