package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// hammerAttempt bounds one attempt at what is not allowed: the next round
// begins whether or not anything came back.
const hammerAttempt = 150 * time.Millisecond

// hammerClient goes round until it is killed: one allowed request, then every
// way it knows to an address that no plan names. It prints one line a round.
func hammerClient(ctx context.Context, args []string) error {
	allowedURL, allowedName, evil := args[0], args[1], args[2]
	for n := 1; ctx.Err() == nil; n++ {
		var all sync.WaitGroup
		for _, attempt := range []func(context.Context, string, string){hammerTLS, hammerTCP, hammerUDP, hammerICMP} {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, hammerAttempt)
				defer cancel()
				attempt(ctx, evil, allowedName)
			})
		}
		ok := hammerAllowed(ctx, allowedURL)
		all.Wait()
		fmt.Println("round", n, ok)
	}
	return ctx.Err()
}

func hammerAllowed(ctx context.Context, url string) string {
	ctx, cancel := context.WithTimeout(ctx, 4*hammerAttempt)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := send(ctx, &http.Client{Transport: tr}, http.MethodGet, url, nil)
	if err != nil {
		return "failed: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	resp.Body.Close()
	return "ok"
}

// hammerTLS says an allowed name to the wrong address.
func hammerTLS(ctx context.Context, evil, name string) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp4", evil+":443")
	if err != nil {
		return
	}
	defer c.Close()
	t := tls.Client(c, &tls.Config{ServerName: "evil.example.org"})
	_ = t.HandshakeContext(ctx) // what comes of it is counted elsewhere
}

func hammerTCP(ctx context.Context, evil, _ string) {
	for _, port := range []string{"22", "53", "80", "8443"} {
		c, err := new(net.Dialer).DialContext(ctx, "tcp4", evil+":"+port)
		if err != nil {
			continue
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n") // as above
		c.Close()
	}
}

func hammerUDP(ctx context.Context, evil, _ string) {
	for _, port := range []string{"53", "123", "443", "9999"} {
		c, err := new(net.Dialer).DialContext(ctx, "udp4", evil+":"+port)
		if err != nil {
			continue
		}
		_, _ = c.Write([]byte("anything")) // as above
		c.Close()
	}
}

func hammerICMP(_ context.Context, evil, _ string) {
	c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return
	}
	defer c.Close()
	echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 1, Seq: 1, Data: []byte("anything")}}
	b, err := echo.Marshal(nil)
	if err != nil {
		return
	}
	_, _ = c.WriteTo(b, &net.IPAddr{IP: net.ParseIP(evil)}) // as above
}

// bannerClient connects by name, waits for the server to speak first, and then
// wants back what it says.
func bannerClient(ctx context.Context, args []string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp4", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return err
		}
	}
	in := bufio.NewReader(c)
	for _, say := range []string{"", "one\n", "two\n"} {
		if _, err := io.WriteString(c, say); err != nil {
			return err
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		fmt.Print(line)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(in)
	if string(rest) != "bye\n" {
		return errors.Join(err, fmt.Errorf("after the half close came %q, want bye", rest))
	}
	return err
}
