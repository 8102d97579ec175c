// Package provision takes a manifest the whole way to what runs: the plan, the link's address, the certificate authority,
// the parts that a provider answers by. Plans are made without touching the machine; Numbering and CA write to the state
// directory.
package provision

import (
	"fmt"
	"io"
	"os"
	"time"
)

// maxHostFile bounds a host file that a provider reads: credentials are small.
const maxHostFile = 4 << 20

// Machine is this host as plan.Provision asks for it. The zero value is usable.
type Machine struct{}

// ReadFile returns a file of at most 4 MiB.
func (Machine) ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHostFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxHostFile {
		return nil, fmt.Errorf("read %s: is longer than 4 MiB", path)
	}
	return b, nil
}

// Getenv returns a variable of this process.
func (Machine) Getenv(name string) string { return os.Getenv(name) }

// Home returns the home directory of the user that the process runs as, or "".
func (Machine) Home() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return home
}

// Now returns the time.
func (Machine) Now() time.Time { return time.Now() }
