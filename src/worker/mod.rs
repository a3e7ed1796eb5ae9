//! One loop that owns all runs: inputs in, `engine::apply`, append, commit, then commands out.
//!
//! Runs are a map, not a task each. What must be on disk before it is sent is sent when its commit comes back.

mod groups;
mod hold;
mod letters;
mod live;
mod poison;
mod queue;
mod reading;
pub mod recover;
mod resume;
mod run_loop;
mod shelf;
mod sleep;
#[cfg(test)]
mod tests;
mod timers;
pub mod turn;

use std::sync::Arc;

pub use letters::{Told, Word};
pub use live::HELD_BACK;
use tokio::sync::{mpsc, oneshot};

use self::queue::{Inlet, Passed};
use self::reading::Found;
use crate::catalog::Effect;
use crate::check::CheckedFlow;
use crate::clock::Clock;
use crate::connector::client::{Reply, Sends};
use crate::engine::Outcome;
use crate::flow::model::Mode;
use crate::guard::{Guard, Permit};
use crate::id::{OpId, RunId};
use crate::journal::{Queued, RunNo, RunRow, Store, StoreError};
use crate::value::Value;

/// The flows that runs are pinned to.
pub trait Registry: Send + Sync {
    /// The flow of a version: deployed now, or compiled again from its bundle in the store. The error is a sentence.
    fn flow(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String>;
    /// How far a flow's effects go now.
    fn mode(&self, name: &str) -> Mode;
    /// What is to be written beside the end of a run: the runs of flows that it starts.
    fn ended(&self, _row: &RunRow, _now: jiff::Timestamp) -> Vec<crate::journal::Op> {
        vec![]
    }
}

/// What the worker works with.
pub struct Deps {
    pub store: Arc<dyn Store>,
    pub client: Arc<dyn Sends>,
    pub guard: Guard,
    pub registry: Arc<dyn Registry>,
    pub clock: Clock,
    pub public_url: Option<String>,
    /// Runs that make calls at the same time.
    pub in_flight: usize,
}

/// Something that subscribers hear of.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// A run waits for a person.
    Waiting(Arc<RunRow>),
    Ended(Arc<RunRow>),
}

/// The way to the loop. Cloning shares it.
#[derive(Clone)]
pub struct Worker {
    sender: mpsc::UnboundedSender<Msg>,
    inlet: Arc<Inlet>,
}

/// One closed enum into the loop.
enum Msg {
    Accepted(Vec<RunRow>),
    /// Accepted in a batch of the loop's own, and not counted yet: what the end of a run has started.
    Started(Vec<RunRow>),
    /// Accepted runs were left on disk.
    Left,
    /// The next of the queue; nothing where it could not be read.
    Queued(Option<Queued>),
    /// Runs whose time has come.
    Due(Vec<(RunNo, Result<Found, StoreError>)>),
    /// A run that was wanted; nothing where there is no such run.
    Read {
        run: RunId,
        found: Result<Option<Found>, String>,
    },
    /// A turn after which the run may sleep is on disk.
    Sleeps {
        run: RunNo,
        seq: u32,
    },
    /// A turn's commit came back: its calls may go.
    Committed {
        run: RunNo,
        calls: Vec<OpId>,
    },
    /// A turn could not be written: the run goes on from what is on disk.
    NotWritten {
        run: RunNo,
        id: RunId,
        error: String,
    },
    Replied {
        run: RunNo,
        op: OpId,
        reply: Box<Reply>,
    },
    Facts {
        run: RunNo,
        op: OpId,
        facts: Result<Value, Outcome>,
    },
    Claimed {
        run: RunNo,
        op: OpId,
        claimed: bool,
    },
    Reload {
        run: RunId,
    },
    Cancel {
        run: RunId,
        by: String,
        reason: String,
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// A person's word about a run.
    Asked(letters::Asked),
    Change {
        change: Change,
        done: oneshot::Sender<()>,
    },
    Subscribe(mpsc::UnboundedSender<RunEvent>),
    Load(oneshot::Sender<Load>),
    Drain(oneshot::Sender<()>),
}

/// Something that must happen between two turns.
pub type Change = Box<dyn FnOnce(&mut Deps) + Send>;

/// How much is going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Accepted, not begun, and in memory already.
    pub queued: usize,
    /// In memory, whether they make calls or wait.
    pub live: usize,
    pub busy: usize,
}

impl Worker {
    /// Resumes what the store has and starts the loop.
    pub async fn start(deps: Deps) -> Result<Worker, crate::error::Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let run_loop = run_loop::Loop::resume(deps, sender.clone()).await?;
        let inlet = run_loop.queue.inlet();
        tokio::spawn(run_loop.run(receiver));
        Ok(Worker { sender, inlet })
    }

    /// Hands over runs that were accepted and are on disk. Where too many wait already they stay there, and the loop reads
    /// them when it has room: what is accepted takes no memory.
    pub fn accepted(&self, rows: Vec<RunRow>) {
        match self.inlet.pass(rows) {
            Passed::On(rows) => self.tell(Msg::Accepted(rows)),
            Passed::Left => self.tell(Msg::Left),
            Passed::LeftToo => {}
        }
    }

    /// Ends a run that has not ended. The error says why it can't be.
    pub async fn cancel(&self, run: RunId, by: String, reason: String) -> Result<(), String> {
        let (answer, receiver) = oneshot::channel();
        self.tell(Msg::Cancel { run, by, reason, answer });
        receiver.await.unwrap_or_else(|_| Err("the service is stopping".to_owned()))
    }

    /// A person's word about a run that is dead or uncertain. The error says why it can't be followed.
    pub async fn word(&self, run: RunId, word: Word, by: String, reason: String) -> Result<(), String> {
        let (answer, receiver) = oneshot::channel();
        self.tell(Msg::Asked(letters::Asked { run, word, by, reason, answer }));
        receiver.await.unwrap_or_else(|_| Err("the service is stopping".to_owned()))
    }

    /// Changes what the loop works with, between two turns: no decision is taken half by the old rules and half by the new.
    /// The change must not block. False where the loop has ended, and nothing was changed.
    pub async fn change(&self, change: Change) -> bool {
        let (done, receiver) = oneshot::channel();
        self.tell(Msg::Change { change, done });
        receiver.await.is_ok()
    }

    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<RunEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.tell(Msg::Subscribe(sender));
        receiver
    }

    pub async fn load(&self) -> Load {
        let (sender, receiver) = oneshot::channel();
        self.tell(Msg::Load(sender));
        receiver.await.unwrap_or_default()
    }

    /// Begins nothing new and waits until what was sent is answered and written. The caller bounds the wait: what is
    /// still open then is in the journal and is settled at the next start.
    pub async fn drain(&self) {
        let (sender, receiver) = oneshot::channel();
        self.tell(Msg::Drain(sender));
        drop(receiver.await);
    }

    fn tell(&self, msg: Msg) {
        // The loop ends only with the process; a message after that has nobody to wait for it.
        drop(self.sender.send(msg));
    }
}

/// A call on its way. If its task dies, the loop still gets an answer: the outcome is unknown.
struct Sending {
    sender: mpsc::UnboundedSender<Msg>,
    run: RunNo,
    op: OpId,
    answered: bool,
}

impl Sending {
    async fn go(mut self, client: Arc<dyn Sends>, permit: Permit, id: RunId, call: Arc<crate::engine::Call>) {
        let point = if call.effect() == Effect::Read { "read" } else { "send" };
        pass(point, "before");
        let reply = client.send(permit, &id, call).await;
        pass(point, "after");
        self.answer(reply);
    }

    fn answer(&mut self, reply: Reply) {
        self.answered = true;
        drop(self.sender.send(Msg::Replied { run: self.run, op: self.op, reply: Box::new(reply) }));
    }
}

/// A point at which tests end the process: the call is allowed and not sent, or answered and nobody has heard of it.
fn pass(point: &str, when: &str) {
    if cfg!(debug_assertions) {
        crate::fail::at(&format!("{point}.{when}"));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.answered {
            let message = "the sending task ended without an answer; this is a bug, please report it".to_owned();
            let outcome = Outcome::Unknown { status: 0, code: "internal".into(), message };
            self.answer(Reply { outcome, blob: None, took: std::time::Duration::ZERO });
        }
    }
}
