//! Room in the kernel for the datagrams of a busy moment.

use std::{net::UdpSocket, sync::Once};

use rustix::net::sockopt;
use tracing::warn;

use crate::limits::SOCKET_BUFFER_BYTES;

/// Makes both buffers of a socket as large as we like them or as the system lets us, and says once if that is less:
/// what does not fit is lost, sent again, and takes the sender's rate down.
pub(crate) fn enlarge(socket: &UdpSocket) {
    // Forcing needs CAP_NET_ADMIN; without it the system's maximum holds.
    let _ = sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES));
    let _ = sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES));
    // The kernel doubles what it is asked for, for its own bookkeeping, and tells the double.
    let recv = sockopt::socket_recv_buffer_size(socket).map_or(0, |bytes| bytes / 2);
    let send = sockopt::socket_send_buffer_size(socket).map_or(0, |bytes| bytes / 2);
    if recv.min(send) < SOCKET_BUFFER_BYTES {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            warn!(
                recv_bytes = recv,
                send_bytes = send,
                "small UDP socket buffers: fast transfers lose packets. \
                 Run `sysctl -w net.core.rmem_max={SOCKET_BUFFER_BYTES} net.core.wmem_max={SOCKET_BUFFER_BYTES}`, \
                 then start the node again"
            );
        });
    }
}
