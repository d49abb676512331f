//! Every format that crosses a socket: pure, sans-IO codecs.
