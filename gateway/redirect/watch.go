package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// repairPace is the least time between two looks at the machine, so that a host
// whose network changes all the time does not keep the process busy.
const repairPace = 100 * time.Millisecond

// Watch keeps the desired state until ctx ends, and then returns nil. It looks
// at everything when the kernel reports a change that matters and every
// Options.Recheck besides; what it finds changed it puts right, counts and
// logs. It blocks; run it on a goroutine of its own, one per Redirect.
func (r *Redirect) Watch(ctx context.Context) error {
	routes, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_TC,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", err)
	}
	tables, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		routes.Close()
		return fmt.Errorf("subscribe to nftables changes: %w", err)
	}
	kick := make(chan struct{}, 1)
	kick <- struct{}{} // for what changed before the subscription
	var listeners sync.WaitGroup
	listeners.Go(func() { listen(routes, kick, routeMatters) })
	listeners.Go(func() { listen(tables, kick, tableMatters(r.options.Instance)) })
	defer listeners.Wait()
	defer tables.Close()
	defer routes.Close()

	recheck := time.NewTicker(r.options.Recheck)
	defer recheck.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-kick:
		case <-recheck.C:
		}
		if err := r.repair(); errors.Is(err, ErrClosed) {
			return err
		}
		pace.Reset(repairPace)
	}
}

// repair looks once. What it could not put right has shut the links, is logged,
// and is tried again at the next look.
func (r *Redirect) repair() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		return ErrClosed
	}
	if err := r.reconcile(true); err != nil {
		r.options.Log.Error("all capture links are shut", "instance", r.options.Instance, "error", err)
	}
	return nil
}

// listen kicks for every message that matters, and for every loss of messages,
// until the socket is closed.
func listen(s *nl.NetlinkSocket, kick chan<- struct{}, matters func(syscall.NetlinkMessage) bool) {
	for {
		messages, _, err := s.Receive()
		lost := errors.Is(err, unix.ENOBUFS)
		if err != nil && !lost && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return
		}
		for i := range messages {
			lost = lost || matters(messages[i])
		}
		if lost {
			select {
			case kick <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}

// routeMatters leaves out what only adds: a route, an address or a filter of
// somebody else's takes nothing away.
func routeMatters(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELRULE,
		unix.RTM_NEWRULE, unix.RTM_DELTFILTER, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_NEWNETCONF:
		return true
	}
	return false
}

// tableMatters looks for the table's name, which all messages about it carry as
// a terminated string.
func tableMatters(instance string) func(syscall.NetlinkMessage) bool {
	name := append([]byte(instance), 0)
	return func(m syscall.NetlinkMessage) bool { return bytes.Contains(m.Data, name) }
}
