package tls

import (
	"crypto/tls"
	"errors"
	"slices"

	"gatewayd/gateway/routes"
)

// errHelloName is what a handshake ends with when its hello asks for another name than the one that was decided on.
var errHelloName = errors.New("hello asks for another server name than the flow was judged by")

// serverConfigs are the configurations for one leaf, one for each offer of protocols, with the ticket keys of one period. The
// zero value has none.
type serverConfigs struct {
	period uint64
	made   []*tls.Config
}

// ServerConfig returns the configuration of a guest's connection to name, with the leaf of name (see Leaf, also for
// errors) and alpn as the protocols that may be chosen, best first; nil offers none. It is shared by connections, so that an idle
// one holds none of its own: do not change it. It is kept as long as the leaf, so alpn is one of a few offers, and none of a guest's.
//
// TLS 1.2 and 1.3. Sessions are resumed under the name alone that their ticket was issued under, by this authority, for two
// days at the most and until the process ends. There is no 0-RTT: crypto/tls has none over TCP.
// The handshake fails when the hello's name is not name: the flow was judged by it. Key exchange is X25519 or a NIST curve,
// without a post-quantum hybrid: the link ends on this host, and crypto/tls orders the groups itself.
func (c *CA) ServerConfig(name string, alpn []string) (*tls.Config, error) {
	l, err := c.leaf(name)
	if err != nil {
		return nil, err
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if period := ticketPeriod(now); period != l.configs.period {
		l.configs = serverConfigs{period: period}
	}
	for _, cfg := range l.configs.made {
		if slices.Equal(cfg.NextProtos, alpn) {
			return cfg, nil
		}
	}
	cfg := serverConfig(l, alpn)
	cfg.SetSessionTicketKeys(c.tickets.of(name, now))
	l.configs.made = append(l.configs.made, cfg)
	return cfg, nil
}

// serverConfig makes a configuration without ticket keys.
func serverConfig(l *leaf, alpn []string) *tls.Config {
	name := l.name
	return &tls.Config{
		Certificates:     []tls.Certificate{*l.cert},
		NextProtos:       slices.Clone(alpn),
		MinVersion:       tls.VersionTLS12,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		// Small records at the beginning help where segments are lost; this link does not leave the host.
		DynamicRecordSizingDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if got, err := routes.CanonicalHost(hello.ServerName); err != nil || got != name {
				return nil, errHelloName
			}
			return nil, nil
		},
	}
}
