//! Keeps messages: one log, its indexes, what survives a crash. Knows no network, no topic policy, no runtime.
