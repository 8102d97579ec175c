package pipelock

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatewayd/lab/privileged"
)

// tarball returns the files below a directory in a tar archive, in gzip.
func tarball(t testing.TB, dir, ending string, all [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i, f := range all {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%s/file%d%s", dir, i, ending), Mode: 0o644, Size: int64(len(f))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipped returns the files in a zip archive, compressed as wheels and Go's modules are.
func zipped(t testing.TB, dir, ending string, all [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, f := range all {
		e, err := w.Create(fmt.Sprintf("%s/file%d%s", dir, i, ending))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// crate is what cargo publish sends: a length, what the manifest says, a length, the archive.
func crate(t testing.TB, archive []byte) []byte {
	t.Helper()
	_, sum, _ := sums("secret-service")
	manifest := map[string]any{
		"name": "secret-service", "vers": "3.1.0", "authors": []string{"Someone <someone@example.test>"}, "description": "Keys and tokens of the desktop.",
		"deps":     []any{map[string]any{"name": "auth-token", "version_req": "^1.2", "features": []string{"api-key"}, "optional": false, "kind": "normal", "registry": nil}},
		"keywords": []string{"keyring", "password", "credential"}, "license": "MIT", "readme": "# secret-service\n\n```\nlet key = std::env::var(\"API_KEY\")?;\n```\n", "links": nil, "cksum": sum,
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(text)))
	out = binary.LittleEndian.AppendUint32(append(out, text...), uint32(len(archive)))
	return append(out, archive...)
}

// published is what npm publish sends: a document that has the archive in base64.
func published(t testing.TB, archive []byte) []byte {
	t.Helper()
	one, _, three := sums(string(archive))
	b, err := json.Marshal(map[string]any{
		"_id": "@scope/api-token", "name": "@scope/api-token", "dist-tags": map[string]string{"latest": "1.0.0"},
		"versions": map[string]any{"1.0.0": map[string]any{
			"name": "@scope/api-token", "version": "1.0.0", "_nodeVersion": "22.1.0", "gitHead": one,
			"dist": map[string]any{"integrity": "sha512-" + three, "shasum": one, "tarball": "https://packages.test/@scope/api-token/-/api-token-1.0.0.tgz"},
		}},
		"_attachments": map[string]any{"@scope/api-token-1.0.0.tgz": map[string]any{"content_type": "application/octet-stream", "data": base64.StdEncoding.EncodeToString(archive), "length": len(archive)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// assistant is a request to a model in the form that has system texts, tools with schemas, and blocks of content: whole files
// as what a tool said, a picture, and thoughts with a signature.
func assistant(t testing.TB, id int, files [][]byte) []byte {
	t.Helper()
	text := func(s string) map[string]any { return map[string]any{"type": "text", "text": s} }
	tool := func(name string) map[string]any {
		return map[string]any{"name": name, "description": "Runs " + name + ". Never print an API key, a token or a password.", "input_schema": map[string]any{
			"$schema": "http://json-schema.test/draft-07/schema#", "type": "object", "additionalProperties": false, "required": []string{"command"},
			"properties": map[string]any{"command": map[string]any{"type": "string"}, "api_key_env": map[string]any{"type": "string", "description": "name of the variable that has the key"}},
		}}
	}
	messages := []any{map[string]any{"role": "user", "content": []any{text("Find out why the token is not refreshed."), map[string]any{
		"type": "image", "source": map[string]any{"type": "base64", "media_type": "image/png", "data": base64.StdEncoding.EncodeToString(picture(t, 64))},
	}}}}
	for i, f := range files {
		call := fmt.Sprintf("toolu_01%s", strings.Map(func(r rune) rune {
			if r == '+' || r == '/' || r == '=' {
				return 'a'
			}
			return r
		}, base64.StdEncoding.EncodeToString(random(uint64(1000*id+i), 16))))
		messages = append(messages,
			map[string]any{"role": "assistant", "content": []any{
				map[string]any{"type": "thinking", "thinking": "The key is read from the environment.", "signature": base64.StdEncoding.EncodeToString(random(uint64(i), 400))},
				map[string]any{"type": "tool_use", "id": call, "name": "Read", "input": map[string]any{"file_path": fmt.Sprintf("/repo/file%d.go", i)}},
			}},
			map[string]any{"role": "user", "content": []any{map[string]any{"type": "tool_result", "tool_use_id": call, "is_error": false, "content": []any{text(string(f))}}}})
	}
	b, err := json.Marshal(map[string]any{
		"model": "m-2", "max_tokens": 32000, "stream": true, "tools": []any{tool("Bash"), tool("Read")}, "messages": messages,
		"system":   []any{map[string]any{"type": "text", "text": "You help with software. Secrets stay where they are.", "cache_control": map[string]any{"type": "ephemeral"}}},
		"metadata": map[string]any{"user_id": fmt.Sprintf("user_%x_account__session_0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab", random(77, 32))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// examples are texts of documentation, with the credentials that issuers print as examples.
func examples() [][]byte {
	id, key := "AKIAIOSFODNN7"+"EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"+"EXAMPLEKEY"
	return [][]byte{
		[]byte("[default]\naws_access_key_id = " + id + "\naws_secret_access_key = " + key + "\n"),
		[]byte(`{"AccessKeyId":"` + id + `","SecretAccessKey":"` + key + `","Expiration":"2026-01-01T00:00:00Z"}`),
		[]byte("export AWS_ACCESS_KEY_ID=" + id + "\nexport AWS_SECRET_ACCESS_KEY=" + key + "\nexport GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nexport API_KEY=sk-xxxxxxxxxxxxxxxx\n"),
		[]byte("curl -H 'Authorization: Bearer <token>' -H 'X-Api-Key: ${API_KEY}' -u user:$PASSWORD https://api.example.test/\n"),
	}
}

// uploads are the shapes of the corpus that are made here.
func uploads(t testing.TB, own [][]byte) map[string]shape {
	t.Helper()
	part := own[:min(60, len(own))]
	tgz := tarball(t, "package", ".js", append([][]byte{minified()}, part...))
	wheel := upload(t, zipped(t, "token_api", ".py", part))
	zstd := requests(t, own)
	for i, b := range zstd.bodies {
		zstd.bodies[i] = encode(t, "zstd", string(b))
	}
	zstd.header = http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"zstd"}}
	blocks := shape{header: asJSON}
	for i := 0; i < len(own); i += 10 {
		blocks.bodies = append(blocks.bodies, assistant(t, i, own[i:min(i+10, len(own))]))
	}
	octets := http.Header{"Content-Type": {"application/octet-stream"}}
	return map[string]shape{
		"npm publish":            {asJSON, [][]byte{published(t, tgz)}},
		"archive as it is":       {octets, [][]byte{tgz}},
		"wheel":                  wheel,
		"module":                 {http.Header{"Content-Type": {"application/zip"}}, [][]byte{zipped(t, "example.test/auth-token@v1.2.3", ".go", part)}},
		"crate":                  {octets, [][]byte{crate(t, tarball(t, "secret-service-3.1.0", ".rs", part))}},
		"model, zstd":            zstd,
		"model, blocks":          blocks,
		"examples":               {http.Header{}, examples()},
		"examples, as JSON":      {asJSON, contents(examples())},
		"model, minified":        requests(t, [][]byte{minified()}),
		"model, base64 pictures": requests(t, [][]byte{[]byte("background: url(data:image/png;base64," + base64.StdEncoding.EncodeToString(picture(t, 80)) + ")")}),
	}
}

// frames are messages that agents send on WebSocket connections.
func frames(t testing.TB, own [][]byte) [][]byte {
	out := [][]byte{
		[]byte(`{"type":"ping"}`), []byte("2probe"), {},
		[]byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"fetch","arguments":{"url":"https://docs.test/api-key"},"_meta":{"progressToken":"0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab"}}}`),
		[]byte(`{"type":"input_audio_buffer.append","event_id":"event_` + fmt.Sprintf("%x", random(5, 12)) + `","audio":"` + base64.StdEncoding.EncodeToString(random(6, 48_000)) + `"}`),
		random(7, 60_000),
	}
	out = append(out, modelRequest(t, 9, own[:8]), assistant(t, 9, own[8:]))
	return append(out, examples()...)
}

// TestOrdinaryFramesPass: nothing is found in the messages of ordinary connections, compressed or not.
func TestOrdinaryFramesPass(t *testing.T) {
	own := files(t, filepath.Join("..", ".."), "bin", ".md", ".c")
	s := formScanner(t).withoutTokens()
	for _, compressed := range []bool{false, true} {
		m, p := s.Messages(other, true), &peer{}
		for i, frame := range frames(t, own) {
			payload := frame
			if compressed {
				payload = p.message(t, string(frame), true)
			}
			r := m.Next(bytes.NewReader(payload), compressed)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, payload) || len(r.Warnings()) != 0 {
				t.Errorf("message %d, compressed %t: %v, notes %+v", i, compressed, err, r.Warnings())
			}
		}
	}
}

// TestOwnHistoryPasses: nothing is found in what a push of this repository would send.
func TestOwnHistoryPasses(t *testing.T) {
	root := filepath.Join("..", "..")
	privileged.Require(t, privileged.Program("git"), func() error { return exec.Command("git", "-C", root, "rev-parse", "HEAD").Run() })
	pack, err := exec.Command("sh", "-c", "git -C "+root+" rev-list --objects HEAD | git -C "+root+" pack-objects --stdout -q").Output()
	if err != nil || !bytes.HasPrefix(pack, []byte("PACK")) {
		t.Fatalf("%d bytes, %v", len(pack), err)
	}
	r, err := formScanner(t).withoutTokens().RequestBody(other, http.Header{"Content-Type": {"application/x-git-receive-pack-request"}}, bytes.NewReader(pack))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil || len(r.Warnings()) != 0 {
		t.Errorf("%d KB: %v, %+v", len(pack)>>10, err, r.Warnings())
	}
}
