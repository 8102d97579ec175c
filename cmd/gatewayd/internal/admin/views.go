package admin

import (
	"time"

	"gatewayd/gateway"
	"gatewayd/gateway/redirect"
)

// Status is the answer of /status.
type Status struct {
	Version  string    `json:"version"`
	Instance string    `json:"instance"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	// Failure is why the last look at the manifests as a whole failed; empty when it did not.
	Failure string `json:"failure,omitempty"`
	// Manifests counts manifests by state.
	Manifests map[string]int `json:"manifests"`
	Flows     int            `json:"flows"`
	// AuditReady is false while an audit file is configured and cannot be written.
	AuditReady bool `json:"audit_ready"`
	// AuditDropped counts records that the audit file lacks.
	AuditDropped uint64 `json:"audit_dropped"`
}

// Bottle is one element of the answer of /bottles: a manifest and what runs of it.
type Bottle struct {
	Bottle   string `json:"bottle"`
	Manifest string `json:"manifest"`
	// State is running, stale or shut.
	State string `json:"state"`
	// Error is why the manifest as it stands is not in force.
	Error string `json:"error,omitempty"`
	// LinkError is why the link is shut although the bottle runs.
	LinkError string `json:"link_error,omitempty"`
	Plan      string `json:"plan,omitempty"`
	// Kind is tap, netns, adopted or existing; Link the host-side interface; Netns the namespace's path.
	Kind    string `json:"kind,omitempty"`
	Link    string `json:"link,omitempty"`
	Netns   string `json:"netns,omitempty"`
	Guest   string `json:"guest,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	MAC     string `json:"mac,omitempty"`
	// Up is true when the link is attached and up.
	Up     bool      `json:"up"`
	Routes int       `json:"routes"`
	Flows  int       `json:"flows"`
	Pins   int       `json:"pins"`
	Since  time.Time `json:"since,omitzero"`
	// CutOff is true while everything of the bottle is denied, since it tried too often to leak.
	CutOff bool `json:"cut_off,omitempty"`
	// Drops are the frames that the kernel dropped, by reason.
	Drops map[string]uint64 `json:"drops,omitempty"`
}

// Flow is one element of the answer of /flows. Its decision reads as text, which gateway.FlowInfo can only write.
type Flow struct {
	gateway.FlowInfo
	Decision string `json:"decision"`
}

// Record is a gateway.Record read back from JSON. Its decision reads as text, which the record's own type can only write.
type Record struct {
	gateway.Record
	Decision string `json:"decision"`
}

// FillLink writes the fields of a link.
func (b *Bottle) FillLink(l redirect.Link) {
	b.Kind, b.Link, b.Netns = l.Kind.String(), l.Name, l.Netns
	b.Guest, b.Gateway, b.MAC = l.Guest.String(), l.Gateway.String(), l.MAC.String()
}
