package main

import (
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"gatewayd/lab"
)

// Ports that loads of many connections call from, one after another and beginning anew at the end. A connection from a port that a flow
// of the fast path had within three seconds is the relay's. The kernel's own choice comes back to a port as soon as that is free, which
// is at once where the server closes first, so that some of a load's connections were no fast path's.
const (
	firstPort = 30000 // above bottlePorts
	lastPort  = 64999
)

// bottlePorts are what the kernel chooses from in a bottle, for all other loads.
const bottlePorts = "10000 29999"

// nextPorts tells a client in a bottle from where it may take n ports, which nobody there has had of late.
func (w *world) nextPorts(g lab.Guest, n int) []string {
	first := max(w.ports[g.Netns], firstPort)
	if first+n-1 > lastPort {
		first = firstPort
	}
	w.ports[g.Netns] = first + n
	return []string{"-ports", strconv.Itoa(first)}
}

// ports are what a client calls from, one for each connection. The zero value leaves the choice to the kernel.
type ports struct {
	first int
	taken atomic.Int64
}

// dialer dials from the next port.
func (p *ports) dialer() *net.Dialer {
	if p.first == 0 {
		return new(net.Dialer)
	}
	// One that was used long ago may be in TIME_WAIT yet; net.ipv4.tcp_tw_reuse allows a connection from it.
	reuse := func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}), err)
	}
	return &net.Dialer{LocalAddr: &net.TCPAddr{Port: p.first + int(p.taken.Add(1)) - 1}, Control: reuse}
}
