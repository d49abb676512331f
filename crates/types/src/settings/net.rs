//! The settings of sockets, for every role. Meaning and defaults: spec `config.md` 2.3 and 2.4.

use std::net::{IpAddr, Ipv4Addr};

use super::settings;

settings! {
    /// How a server listens and dials.
    NetSettings {
        /// Address on which the server listens.
        "bindAddress" bind_address: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED), AtRestart;
        /// Silence after which a connection is closed, in s.
        "serverChannelMaxIdleTimeSeconds" server_channel_max_idle_time_seconds: u64 =
            120, AtRestart;
        /// Send buffer of a connection in bytes; 0: the system decides.
        "serverSocketSndBufSize" server_socket_snd_buf_size: u32 = 0, AtRestart;
        /// Receive buffer of a connection in bytes; 0: the system decides.
        "serverSocketRcvBufSize" server_socket_rcv_buf_size: u32 = 0, AtRestart;
    }
}
