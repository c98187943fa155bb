//! Judging, from rule text and facts to verdicts.
