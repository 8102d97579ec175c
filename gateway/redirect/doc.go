// Package redirect captures everything a bottle sends and hands it to the
// gateway's own sockets, or drops it.
//
// It owns three layers that each hold alone:
//
//  1. a BPF program on the ingress of every capture link, which passes only
//     what it has assigned to one of the gateway's sockets;
//  2. an nftables table keyed on the names of the capture links, in force
//     before any of them is up;
//  3. per-link sysctls, and a BPF program at the namespace's socket lookup
//     which keeps a bottle from every listener but the gateway's.
//
// All three outlive the process. Links, programs and maps are pinned in one
// directory of a BPF file system; a process that starts again adopts them, and
// a bottle whose gateway is gone can reach nothing. Only [Uninstall] removes.
//
// The package is the only one that talks to the kernel about links, BPF,
// nftables and routing. It logs through the logger it was given, and decides
// nothing about destinations: that is the gateway's part.
//
// Every function acts in the network namespace of the process. A process must
// not move single threads to another namespace and call this package there.
package redirect
