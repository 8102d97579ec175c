package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Algorithms that the sender of a bulk load has, whatever the machine's own is: with BBR, which paces by round trips that are
// a microsecond here, the rate says more of the sender than of the way.
const (
	cubic     = "cubic" // the default of Linux
	bbr       = "bbr"
	bbrSuffix = "-" + bbr
)

// oneSuffix is of the bulk loads whose two ends share a CPU. Where both are free to choose, the scheduler puts them there or apart, which
// makes two or three times the rate or not.
const oneSuffix = "-one"

// congestion is the algorithm of a bulk load.
func congestion(load string) string {
	if strings.HasSuffix(load, bbrSuffix) {
		return bbr
	}
	return cubic
}

// hasBBR tells whether the kernel has it.
func hasBBR() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	return err == nil && slices.Contains(strings.Fields(string(text)), bbr)
}

// setCongestion gives an end of a connection its algorithm; none is named by zeros.
func setCongestion(c *net.TCPConn, name []byte) error {
	name, _, _ = bytes.Cut(name, []byte{0})
	if len(name) == 0 {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("set congestion control: %w", err)
	}
	var errSet error
	err = raw.Control(func(fd uintptr) {
		errSet = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, string(name))
	})
	if err := errors.Join(err, errSet); err != nil {
		return fmt.Errorf("set congestion control %s: %w", name, err)
	}
	return nil
}
