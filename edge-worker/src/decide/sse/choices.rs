//! Follows the choices (alternative answers) of a stream, event by event. Says whether each choice has a finish reason.
//! Called by `classify`, and by the attempt machine (`run`) if a stream ends without `[DONE]`.

/// The most choices that are counted. OpenAI allows 128 for each prompt of a completion.
const MAX: usize = 4_096;

/// Which choices of a stream have finished, by their index.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    finished: Vec<bool>,
    /// Whether a choice had an index beyond the limit.
    uncounted: bool,
}

impl Choices {
    /// Notes that an event has a part of the choice `index`, and whether it has a finish reason. A finished choice
    /// stays finished, even if a server sends more parts of it afterwards.
    pub(super) fn note(&mut self, index: Option<usize>, finished: bool) {
        let Some(index) = index.filter(|&index| index < MAX) else {
            self.uncounted = true;
            return;
        };
        if self.finished.len() <= index {
            self.finished.resize(index + 1, false);
        }
        if let Some(choice) = self.finished.get_mut(index) {
            *choice |= finished;
        }
    }

    /// Whether there are at least `expected` choices, and all of them have finished.
    pub(super) fn are_finished(&self, expected: usize) -> bool {
        !self.uncounted && self.finished.len() >= expected.max(1) && self.finished.iter().all(|&finished| finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_has_to_finish() {
        let mut choices = Choices::default();
        assert!(!choices.are_finished(0), "no choice at all");
        choices.note(Some(1), true);
        assert!(!choices.are_finished(0), "the first choice never came");
        choices.note(Some(0), false);
        choices.note(Some(0), true);
        choices.note(Some(0), false);
        assert!(choices.are_finished(2) && !choices.are_finished(3));
        choices.note(Some(MAX), true);
        assert!(!choices.are_finished(2), "the index is beyond the limit");
        assert!(choices.finished.len() <= MAX);
    }
}
