package lab

import (
	"encoding/json"
	"io"
	"net/http"
)

// Echoed is the answer of Echo.
type Echoed struct {
	Host   string      `json:"host"`
	Proto  string      `json:"proto"`
	Method string      `json:"method"`
	URI    string      `json:"uri"`
	Header http.Header `json:"header"`
	Body   string      `json:"body,omitempty"`
}

// Echo answers with what it was asked, credentials included, as debugging
// endpoints of real services do.
func Echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, keptBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Echoed{ // the client has gone
		Host: r.Host, Proto: r.Proto, Method: r.Method, URI: r.RequestURI, Header: r.Header, Body: string(body),
	})
}
