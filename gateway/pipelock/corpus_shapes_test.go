package pipelock

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// tempting are names of packages and variables that look as if a key came next.
var tempting = []string{"api-token", "auth-secret", "key-tree", "@scope/credentials", "lodash", "access-token", "passwd-user", "keyring", "cryptography"}

// sums returns hashes of something in hexadecimal and in base64.
func sums(of ...any) (sha1Hex, sha256Hex, sha512Base64 string) {
	text := fmt.Append(nil, of...)
	a, b, c := sha1.Sum(text), sha256.Sum256(text), sha512.Sum512(text)
	return hex.EncodeToString(a[:]), hex.EncodeToString(b[:]), base64.StdEncoding.EncodeToString(c[:])
}

func uuid(rnd *rand.Rand) string {
	return fmt.Sprintf("%08x-%04x-4%03x-9%03x-%012x", rnd.Uint32(), rnd.Uint32N(1<<16), rnd.Uint32N(1<<12), rnd.Uint32N(1<<12), rnd.Uint64N(1<<48))
}

// lockFiles are those of other package managers than lockFile's, as they write them.
func lockFiles() [][]byte {
	var pip, poetry, cargo, yarn, pnpm, goSum strings.Builder
	for i, name := range tempting {
		for j := range 30 {
			one, two, three := sums(name, i, j)
			version := fmt.Sprintf("%d.%d.0", i, j)
			fmt.Fprintf(&pip, "%s==%s \\\n    --hash=sha256:%s \\\n    --hash=sha256:%s\n", name, version, two, strings.Repeat(two[:32], 2))
			fmt.Fprintf(&poetry, "[[package]]\nname = \"%s\"\nversion = \"%s\"\nfiles = [\n    {file = \"%s-%s-py3-none-any.whl\", hash = \"sha256:%s\"},\n]\n\n[metadata]\ncontent-hash = \"%s\"\n", name, version, name, version, two, two)
			fmt.Fprintf(&cargo, "[[package]]\nname = \"%s\"\nversion = \"%s\"\nsource = \"registry+https://index.test\"\nchecksum = \"%s\"\ndependencies = [\n \"auth-token\",\n]\n\n", name, version, two)
			fmt.Fprintf(&yarn, "\"%s@^%s\":\n  version \"%s\"\n  resolved \"https://packages.test/%s/-/%s-%s.tgz#%s\"\n  integrity sha512-%s\n\n", name, version, version, name, name, version, one, three)
			fmt.Fprintf(&pnpm, "  /%s@%s:\n    resolution: {integrity: sha512-%s}\n    engines: {node: '>=8'}\n\n", name, version, three)
			fmt.Fprintf(&goSum, "example.test/%s v%s h1:%s=\nexample.test/%s v%s/go.mod h1:%s=\n", name, version, three[:43], name, version, three[43:86])
		}
	}
	var out [][]byte
	for _, b := range []*strings.Builder{&pip, &poetry, &cargo, &yarn, &pnpm, &goSum} {
		out = append(out, []byte(b.String()))
	}
	return out
}

// minified is JavaScript as a bundler leaves it: one line, short names, hashes of chunks, and words that rules look for.
func minified() []byte {
	rnd := rand.New(rand.NewPCG(31, 32))
	var b strings.Builder
	name := func() string {
		return "etnrioaslcudpmhgfvybwkxjqz"[rnd.IntN(26):][:1] + fmt.Sprint(rnd.IntN(9))
	}
	for range 3000 {
		one, two, _ := sums(rnd.Uint64())
		switch rnd.IntN(8) {
		case 0:
			fmt.Fprintf(&b, "%d:\"%s\",", rnd.IntN(9000), one[:20])
		case 1:
			fmt.Fprintf(&b, "function %s(%s,%s){return %s.token=%s.getToken(%s),%s.key===%s.apiKey}", name(), name(), name(), name(), name(), name(), name(), name())
		case 2:
			fmt.Fprintf(&b, "var %s=%s.secret||%s.password,%s=\"auth/invalid-credential\";", name(), name(), name(), name())
		case 3:
			fmt.Fprintf(&b, "e.exports={key:\"%s\",token:void 0,access:!0};", name())
		case 4:
			fmt.Fprintf(&b, "n.p+\"static/media/key.%s.svg\",", two[:20])
		case 5:
			fmt.Fprintf(&b, "t.setItem(\"access_token_expires\",%d),", rnd.Uint32())
		default:
			fmt.Fprintf(&b, "%s(%s=>%s?.%s??%s,{type:\"%s\"}),", name(), name(), name(), name(), name(), name())
		}
	}
	b.WriteString("\n//# sourceMappingURL=main." + strings.Repeat("0a1b2c3d", 3) + ".js.map\n")
	return []byte(b.String())
}

// conversation is a request to a model with what such requests carry besides text: ids, signatures, thoughts that only the
// server can read, and pictures.
func conversation(n int) []byte {
	rnd := rand.New(rand.NewPCG(41, uint64(n)))
	opaque := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	var messages []any
	for range 20 {
		messages = append(messages,
			map[string]any{"role": "assistant", "content": []any{
				map[string]any{"type": "thinking", "thinking": "The token is read from the environment; the key is not in the file.", "signature": opaque(300)},
				map[string]any{"type": "tool_use", "id": "toolu_01" + uuid(rnd)[:8], "name": "bash", "input": map[string]any{"command": "grep -rn 'api_key' --include=*.py . | head"}},
			}},
			map[string]any{"type": "reasoning", "id": "rs_" + strings.ReplaceAll(uuid(rnd), "-", ""), "encrypted_content": "gAAAAA" + opaque(600)},
			map[string]any{"role": "user", "content": []any{
				map[string]any{"type": "tool_result", "content": "src/settings.py:12:API_KEY = os.environ[\"API_KEY\"]\nsrc/settings.py:13:SECRET = \"changeme\"\n.env.example:1:API_TOKEN=<your-token-here>\n.env.example:2:OTHER_KEY=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"},
			}})
	}
	b, err := json.Marshal(map[string]any{
		"model": "m-1", "prompt_cache_key": uuid(rnd), "session_id": uuid(rnd), "request_token": uuid(rnd), "messages": messages,
		"metadata": map[string]any{"user_id": "user_" + strings.Repeat(strings.ReplaceAll(uuid(rnd), "-", ""), 2), "account_key": uuid(rnd)},
	})
	if err != nil {
		panic(err) // strings, maps and slices always encode
	}
	return b
}

// contents are files as they are sent to a forge: in base64, within JSON.
func contents(files [][]byte) [][]byte {
	var out [][]byte
	for _, f := range files {
		one, _, _ := sums(string(f))
		out = append(out, []byte(`{"message":"update","sha":"`+one+`","content":"`+base64.StdEncoding.EncodeToString(f)+`"}`))
	}
	return out
}

// moreShapes are those of the corpus that are made here.
func moreShapes(own [][]byte) map[string]shape {
	ids := &bytes.Buffer{}
	rnd := rand.New(rand.NewPCG(51, 52))
	for i := range 2000 {
		one, two, _ := sums("id", i)
		fmt.Fprintf(ids, "{\"id\":\"%s\",\"request_key\":\"%s\",\"idempotency_key\":\"%s\",\"etag_token\":\"%s\",\"cache-key\":\"%s\"}\n", uuid(rnd), uuid(rnd), strings.ToUpper(uuid(rnd)), one, two)
	}
	return map[string]shape{
		"other lock files":         {bodies: lockFiles()},
		"other lock files, base64": {asJSON, contents(lockFiles())},
		"minified":                 {bodies: [][]byte{minified()}},
		"minified, base64":         {asJSON, contents([][]byte{minified()})},
		"conversations":            {asJSON, [][]byte{conversation(1), conversation(2), conversation(3)}},
		"ids and hashes":           {asJSON, [][]byte{ids.Bytes()}},
		"own source, base64":       {asJSON, contents(own)},
	}
}
