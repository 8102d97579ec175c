package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// tunnelWord begins every name that carries data, and every other place of a question that could.
const tunnelWord = "gatewayd-e2e-tunnel"

// tunnelClient carries data out by DNS, as a tunnel does: DENIED and WILD are suffixes, OUTSIDE an address that is no
// resolver of the bottle's, COUNT how often. It prints how often each way was answered.
func tunnelClient(ctx context.Context, args []string) error {
	denied, wild, outside := args[0], args[1], args[2]
	count, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	resolver := net.JoinHostPort(config.Servers[0], "53")
	answers := map[string]int{}
	types := []uint16{dns.TypeA, dns.TypeTXT, dns.TypeNULL, dns.TypeCNAME, dns.TypeMX}
	for i := range count {
		sum := sha256.Sum256([]byte(strconv.Itoa(i)))
		chunk := strings.ToLower(strings.TrimRight(base32.StdEncoding.EncodeToString(sum[:]), "=")) // 52 letters and digits
		word := tunnelWord + strconv.Itoa(i)
		for _, try := range []struct{ way, name, network, at string }{
			{"denied", word + "." + chunk + "." + chunk + "." + denied, "udp", resolver},
			{"denied, over TCP", word + "." + chunk + "." + denied, "tcp", resolver},
			{"denied, another resolver", word + "." + chunk + "." + denied, "udp", net.JoinHostPort(outside, "53")},
			{"wildcard, long labels", word + "." + chunk + "." + chunk[:40] + "." + wild, "udp", resolver},
			{"wildcard, many labels", word + "." + strings.Join(strings.Split(chunk[:20], ""), ".") + "." + wild, "udp", resolver},
		} {
			if i >= 20 && try.network == "tcp" {
				continue
			}
			answer, err := ask(ctx, try.network, try.at, try.name, types[i%len(types)])
			if err != nil {
				return fmt.Errorf("%s: %w", try.way, err)
			}
			answers[try.way+": "+answer]++
		}
	}
	// Names that look like any other, but too many of them.
	for i := range 10 * count {
		answer, err := ask(ctx, "udp", resolver, fmt.Sprintf("host%d.%s", i, wild), dns.TypeA)
		if err != nil {
			return fmt.Errorf("many names: %w", err)
		}
		answers["wildcard, many names: "+answer]++
	}
	fmt.Println(answers)
	return nil
}

// ask asks once, with data in an option, which a forwarder would send on as well.
func ask(ctx context.Context, network, at, name string, kind uint16) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	m.SetEdns0(1232, true)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0LOCALSTART, Data: []byte(tunnelWord + "-option")})
	reply, _, err := (&dns.Client{Net: network, Timeout: time.Second}).ExchangeContext(ctx, m, at)
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return "no answer", nil // there is a pace for questions
	case err != nil:
		return "", err
	}
	return dns.RcodeToString[reply.Rcode], nil
}

// clockClient sets the clock off by OFFSET, which only root of a VM should, makes a request as getClient does, and sets the
// clock right again.
func clockClient(ctx context.Context, args []string) error {
	offset, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	boot, err := boottime()
	if err != nil {
		return err
	}
	right := time.Now()
	if err := setClock(right.Add(offset)); err != nil {
		return err
	}
	failed := getClient(ctx, args[1:])
	now, err := boottime()
	return errors.Join(failed, err, setClock(right.Add(now-boot)))
}

// shiftClient sets the clock off by OFFSET.
func shiftClient(_ context.Context, args []string) error {
	offset, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	return setClock(time.Now().Add(offset))
}

func setClock(at time.Time) error {
	ts := unix.NsecToTimespec(at.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// boottime is a clock that nobody sets.
func boottime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano()), err
}

// lower makes captured frames comparable, since resolvers ask in upper and lower case mixed.
func lower(frames []byte) []byte { return bytes.ToLower(frames) }
