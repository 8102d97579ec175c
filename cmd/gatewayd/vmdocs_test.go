package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"gatewayd/plan"
)

// blocks returns the fenced blocks of a language in a document.
func blocks(t *testing.T, file, language string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		out = append(out, m[1])
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", file, language)
	}
	return out
}

// TestVMDocuments: manifests and configurations of the documents on VMs can be used, and every command of gatewayd's in
// them has the flags that it is given.
func TestVMDocuments(t *testing.T) {
	for _, file := range []string{"../../docs/SMOLMACHINES.md", "../../docs/VMMS.md"} {
		for _, text := range blocks(t, file, "yaml") {
			if _, err := plan.ParseManifest(file, []byte(text)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		for _, text := range blocks(t, file, "console") {
			for line := range strings.Lines(text) {
				words := strings.Fields(strings.SplitN(strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "sudo "), "#", 2)[0])
				if len(words) == 0 || words[0] != "gatewayd" {
					continue
				}
				root := newRoot(environment{})
				c, rest, err := root.Find(words[1:])
				if err == nil {
					err = c.ParseFlags(rest)
				}
				if err != nil || c == root {
					t.Errorf("%s: %s: %v", file, strings.TrimSpace(line), err)
				}
			}
		}
	}
	for _, text := range blocks(t, "../../docs/VMMS.md", "json") {
		var v struct {
			Interfaces []struct {
				Tap string `json:"host_dev_name"`
			} `json:"network-interfaces"`
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil || len(v.Interfaces) != 1 || v.Interfaces[0].Tap != "gw-dev" {
			t.Errorf("%+v, %v", v, err)
		}
	}
}
