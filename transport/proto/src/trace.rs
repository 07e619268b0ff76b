//! What a machine was told, and what it answered: one line for each input, so that a run can be told, and replayed.
//!
//! ```text
//! form-trace 1 participant
//! 0 010000 Record { settled: None, work: None } =>
//! 7 00…00 Message(Message { … }) => Stage(Work { … })
//! ```
//!
//! A head names version and machine; the line after it is what the machine began from, and every further line one
//! input: the time in ms, borsh in hex, the same for people, and the outputs in order, separated by `; `. A head may come
//! again: the machine was begun again, as after a restart. Only the hex is read back; outputs are compared as text.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Debug, Write as _};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{
    Coordinator, CoordinatorInput, CoordinatorOutput, Millis, Participant, ParticipantInput, ParticipantOutput, Plan,
    Record,
};

/// Stands in the head of every trace.
pub const TRACE_VERSION: u32 = 1;

const NAME: &str = "form-trace";
const ARROW: &str = " =>";

/// A machine, as a trace sees it.
pub trait Machine: Sized {
    /// What it begins from.
    type Start: BorshSerialize + BorshDeserialize + Debug + Copy;
    /// What it is told.
    type Input: BorshSerialize + BorshDeserialize + Debug + Copy;
    /// What it answers.
    type Output: Debug;
    /// In the head of its traces.
    const KIND: &'static str;

    /// A new one.
    fn start(start: Self::Start, now: Millis) -> Self;
    /// Hands in one input; the outputs, in order.
    fn feed(&mut self, input: Self::Input, now: Millis) -> Vec<Self::Output>;
    /// The outputs that wait, in order.
    fn drain(&mut self) -> Vec<Self::Output>;
}

impl Machine for Participant {
    type Start = Record;
    type Input = ParticipantInput;
    type Output = ParticipantOutput;
    const KIND: &'static str = "participant";

    fn start(start: Record, now: Millis) -> Self {
        Self::recover(start, now)
    }

    fn feed(&mut self, input: ParticipantInput, now: Millis) -> Vec<ParticipantOutput> {
        self.handle(input, now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<ParticipantOutput> {
        core::iter::from_fn(|| self.poll_output()).collect()
    }
}

impl Machine for Coordinator {
    type Start = Plan;
    type Input = CoordinatorInput;
    type Output = CoordinatorOutput;
    const KIND: &'static str = "coordinator";

    fn start(start: Plan, now: Millis) -> Self {
        Self::new(start, now)
    }

    fn feed(&mut self, input: CoordinatorInput, now: Millis) -> Vec<CoordinatorOutput> {
        self.handle(input, now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<CoordinatorOutput> {
        core::iter::from_fn(|| self.poll_output()).collect()
    }
}

/// Head and first line of a machine that has just begun.
pub fn trace_start<M: Machine>(start: &M::Start, now: Millis, outputs: &[M::Output]) -> String {
    let mut text = alloc::format!("{NAME} {TRACE_VERSION} {}\n", M::KIND);
    text.push_str(&line(start, now, outputs));
    text
}

/// The line of one input, its end included.
pub fn trace_line<M: Machine>(input: &M::Input, now: Millis, outputs: &[M::Output]) -> String {
    line(input, now, outputs)
}

fn line<I: BorshSerialize + Debug, O: Debug>(input: &I, now: Millis, outputs: &[O]) -> String {
    let mut bytes = Vec::new();
    // Writing to a Vec or a String does not fail.
    let written = input.serialize(&mut bytes);
    debug_assert!(written.is_ok());
    let mut text = alloc::format!("{} ", now.0);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, " {input:?}{ARROW}");
    text.push_str(&told(outputs));
    text.push('\n');
    text
}

fn told<O: Debug>(outputs: &[O]) -> String {
    let mut text = String::new();
    for (number, output) in outputs.iter().enumerate() {
        let _ = write!(text, "{} {output:?}", if number == 0 { "" } else { ";" });
    }
    text
}

/// Where a trace is not what this program would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: TraceProblem,
}

/// What may be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceProblem {
    /// Not a line of this version.
    Malformed,
    /// The machine answers otherwise.
    Differs {
        /// As recorded.
        recorded: String,
        /// As it answers now.
        replayed: String,
    },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            TraceProblem::Malformed => write!(f, "line {} is not of a trace of version {TRACE_VERSION}", self.line),
            TraceProblem::Differs { recorded, replayed } => {
                write!(f, "line {}: recorded{recorded}, replayed{replayed}", self.line)
            }
        }
    }
}

impl core::error::Error for TraceError {}

/// Feeds each machine of a trace what it was told, and compares what it answers. The number of inputs.
///
/// # Errors
/// A line that is malformed, or that differs.
pub fn replay(trace: &str) -> Result<usize, TraceError> {
    enum Any {
        None,
        Participant(Option<Participant>),
        Coordinator(Option<Coordinator>),
    }
    let (mut machine, mut inputs) = (Any::None, 0);
    for (number, text) in trace.lines().enumerate() {
        let failed = |problem| TraceError { line: number + 1, problem };
        if let Some(head) = text.strip_prefix(NAME) {
            let kind = head.trim_start().strip_prefix(&*alloc::format!("{TRACE_VERSION} "));
            machine = match kind {
                Some(kind) if kind == Participant::KIND => Any::Participant(None),
                Some(kind) if kind == Coordinator::KIND => Any::Coordinator(None),
                _ => return Err(failed(TraceProblem::Malformed)),
            };
            continue;
        }
        let began = match &mut machine {
            Any::None => Err(TraceProblem::Malformed),
            Any::Participant(machine) => replay_line(machine, text),
            Any::Coordinator(machine) => replay_line(machine, text),
        };
        inputs += usize::from(!began.map_err(failed)?);
    }
    Ok(inputs)
}

/// True: it is what the machine began from.
fn replay_line<M: Machine>(machine: &mut Option<M>, text: &str) -> Result<bool, TraceProblem> {
    let (left, recorded) = text.split_once(ARROW).ok_or(TraceProblem::Malformed)?;
    let mut words = left.split(' ');
    let now = words.next().and_then(|word| word.parse().ok()).map(Millis).ok_or(TraceProblem::Malformed)?;
    let bytes = words.next().and_then(unhex).ok_or(TraceProblem::Malformed)?;
    let (outputs, began) = match machine {
        Some(machine) => {
            let input = M::Input::try_from_slice(&bytes).map_err(|_| TraceProblem::Malformed)?;
            (machine.feed(input, now), false)
        }
        None => {
            let start = M::Start::try_from_slice(&bytes).map_err(|_| TraceProblem::Malformed)?;
            (machine.insert(M::start(start, now)).drain(), true)
        }
    };
    let replayed = told(&outputs);
    if replayed != recorded {
        return Err(TraceProblem::Differs { recorded: recorded.to_owned(), replayed });
    }
    Ok(began)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttemptId, Body, CommitId, Epoch, Message};

    /// A target that hears an offer and asks the store, twice begun.
    fn recorded() -> String {
        let offer = Body::Offer { commit: CommitId([9; 32]) };
        let message = Message { attempt: AttemptId([0xab; 16]), epoch: Epoch(3), body: offer };
        let mut text = String::new();
        for _ in 0..2 {
            let mut machine = Participant::start(Record::default(), Millis(5));
            text.push_str(&trace_start::<Participant>(&Record::default(), Millis(5), &machine.drain()));
            for (input, at) in
                [(ParticipantInput::Message(message), Millis(7)), (ParticipantInput::Tick, Millis(3_007))]
            {
                let outputs = machine.feed(input, at);
                text.push_str(&trace_line::<Participant>(&input, at, &outputs));
            }
        }
        text
    }

    #[test]
    fn golden_text() {
        let once = "form-trace 1 participant\n\
            5 0000 Record { settled: None, work: None } =>\n\
            7 00{ab*16}030000000000000000{09*32} Message(Message { attempt: abababab, epoch: Epoch(3), body: Offer { commit: \
            09090909 } }) => Stage(Work { attempt: abababab, epoch: Epoch(3), commit: 09090909 })\n\
            3007 0c Tick => ReadOutcome(abababab)\n";
        let once = once.replace("{ab*16}", &"ab".repeat(16)).replace("{09*32}", &"09".repeat(32));
        assert_eq!(recorded(), once.repeat(2));
        assert_eq!(replay(&recorded()), Ok(4));
    }

    #[test]
    fn another_answer_is_found() {
        let text = recorded().replacen("=> ReadOutcome(abababab)", "=>", 1);
        let problem = TraceProblem::Differs { recorded: String::new(), replayed: " ReadOutcome(abababab)".to_owned() };
        assert_eq!(replay(&text), Err(TraceError { line: 4, problem }));
    }

    #[test]
    fn damage_is_refused() {
        let text = recorded();
        for (from, to) in
            [("trace 1", "trace 2"), ("participant", "party"), ("7 00ab", "7 ffab"), ("3007 0c", "3007 0")]
        {
            let damaged = text.replacen(from, to, 1);
            assert!(matches!(replay(&damaged), Err(TraceError { problem: TraceProblem::Malformed, .. })), "{to}");
        }
        assert_eq!(replay("7 0c Tick =>"), Err(TraceError { line: 1, problem: TraceProblem::Malformed }));
    }
}
