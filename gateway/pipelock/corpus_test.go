package pipelock

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gatewayd/gateway/formats"
)

var builtin = sync.OnceValues(formats.Default)

// formScanner looks for forms besides the tokens of scanner.
func formScanner(t testing.TB) *Scanner {
	t.Helper()
	set, err := builtin()
	if err != nil {
		t.Fatal(err)
	}
	return scanner().WithFormats(set, set.Policy(nil, false))
}

// shape is one kind of body that agents send in ordinary work.
type shape struct {
	header http.Header
	bodies [][]byte
}

var asJSON = http.Header{"Content-Type": {"application/json"}}

// modelRequest is a request to a model with files in it: the files as an agent reads them, as results of its tools.
func modelRequest(t testing.TB, id int, files [][]byte) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(id), 7))
	uuid := fmt.Sprintf("%08x-%04x-7%03x-9%03x-%012x", rnd.Uint32(), rnd.Uint32N(1<<16), rnd.Uint32N(1<<12), rnd.Uint32N(1<<12), rnd.Uint64N(1<<48))
	input := []any{map[string]any{"type": "message", "role": "user", "content": []any{map[string]any{"type": "input_text", "text": "Why does the login test fail? The API key of the sandbox is not used."}}}}
	for i, f := range files {
		call := fmt.Sprintf("call_%x", rnd.Uint64())
		input = append(input,
			map[string]any{"type": "function_call", "name": "shell", "arguments": fmt.Sprintf(`{"command":["sed","-n","1,400p","file%d.go"]}`, i), "call_id": call},
			map[string]any{"type": "function_call_output", "call_id": call, "output": string(f)})
	}
	sum := sha1.Sum([]byte(uuid))
	b, err := json.Marshal(map[string]any{
		"model": "m-1", "stream": true, "store": false, "prompt_cache_key": uuid, "input": input,
		"metadata": map[string]any{"session_id": uuid, "commit": hex.EncodeToString(sum[:]), "user_token_count": 123456},
		"include":  []string{"reasoning.encrypted_content"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files returns the files below dir whose names end in one of the endings.
func files(t testing.TB, dir string, skip string, endings ...string) [][]byte {
	t.Helper()
	var out [][]byte
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && p != dir && (e.Name() == skip || e.Name() == "testdata" || e.Name()[0] == '.') {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		for _, end := range endings {
			if strings.HasSuffix(p, end) {
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				out = append(out, b)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// requests puts files into model requests, ten each.
func requests(t testing.TB, all [][]byte) shape {
	s := shape{header: asJSON}
	for i := 0; i < len(all); i += 10 {
		s.bodies = append(s.bodies, modelRequest(t, i, all[i:min(i+10, len(all))]))
	}
	return s
}

// lockFile is a lock file of a package manager, with the names that look most like keys.
func lockFile() []byte {
	var b strings.Builder
	b.WriteString("{\n  \"name\": \"app\",\n  \"lockfileVersion\": 3,\n  \"packages\": {\n")
	for i, name := range []string{"api-token", "auth-secret", "key-tree", "@scope/credentials", "lodash", "access-token", "passwd-user"} {
		for j := range 40 {
			sum := sha512.Sum512([]byte(fmt.Sprint(name, j)))
			fmt.Fprintf(&b, "    \"node_modules/%s-%d\": {\n      \"version\": \"%d.%d.0\",\n      \"resolved\": \"https://packages.test/%s/-/%s-%d.tgz\",\n      \"integrity\": \"sha512-%s\"\n    },\n",
				name, j, i, j, name, name, j, base64.StdEncoding.EncodeToString(sum[:]))
		}
	}
	b.WriteString("    \"\": {}\n  }\n}\n")
	return []byte(b.String())
}

// picture is a photograph, as far as its bytes are concerned.
func picture(t testing.TB, n int) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, uint64(n)))
	m := image.NewRGBA(image.Rect(0, 0, n, n))
	for x := range n {
		for y := range n {
			m.Set(x, y, color.RGBA{uint8(rnd.Uint32()), uint8(x), uint8(y), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// gitPack is the body of a push: command lines and a pack (gitformat-pack).
func gitPack(t testing.TB, blobs [][]byte) []byte {
	t.Helper()
	a, b := sha1.Sum([]byte("old")), sha1.Sum([]byte("new"))
	line := fmt.Sprintf("%x %x refs/heads/api-token-refresh\x00 report-status side-band-64k object-format=sha1", a, b)
	out := bytes.NewBufferString(fmt.Sprintf("%04x%s0000PACK", len(line)+4, line))
	for _, n := range []uint32{2, uint32(len(blobs))} {
		if err := binary.Write(out, binary.BigEndian, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, blob := range blobs {
		out.Write([]byte{0xb0 | byte(len(blob)&15), byte(len(blob) >> 4)})
		z := zlib.NewWriter(out)
		if _, err := z.Write(blob); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// upload is a package as it is published: a form with the archive in it.
func upload(t testing.TB, archive []byte) shape {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	sum := sha512.Sum512(archive)
	for k, v := range map[string]string{":action": "file_upload", "sha256_digest": hex.EncodeToString(sum[:32]), "blake2_256_digest": hex.EncodeToString(sum[32:]), "name": "token-api"} {
		if err := w.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	p, err := w.CreateFormFile("content", "token-api-1.0.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return shape{http.Header{"Content-Type": {w.FormDataContentType()}}, [][]byte{b.Bytes()}}
}

// corpus is what agents send.
func corpus(t testing.TB) map[string]shape {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	std := filepath.Join(strings.TrimSpace(string(goroot)), "src")
	own := files(t, filepath.Join("..", ".."), "bin", ".go", ".md", ".c", ".yaml")
	sums := files(t, filepath.Join("..", ".."), "bin", "go.sum")
	pictures := [][]byte{picture(t, 40), picture(t, 300)}
	images := shape{header: asJSON}
	for _, p := range pictures {
		images.bodies = append(images.bodies, []byte(`{"type":"input_image","image_url":"data:image/png;base64,`+base64.StdEncoding.EncodeToString(p)+`"}`))
	}
	all := map[string]shape{
		"model, own source":      requests(t, own),
		"model, standard":        requests(t, files(t, std, "vendor", ".go")),
		"model, lock files":      requests(t, append(sums, lockFile())),
		"source as it is":        {http.Header{}, own},
		"lock files":             {http.Header{}, append(sums, lockFile())},
		"base64 images":          images,
		"images":                 {http.Header{"Content-Type": {"image/png"}}, pictures},
		"git pack":               {http.Header{"Content-Type": {"application/x-git-receive-pack-request"}}, [][]byte{gitPack(t, own)}},
		"package, as a form":     upload(t, gitPack(t, own[:20])),
		"package, as JSON":       {asJSON, [][]byte{[]byte(`{"_attachments":{"a-1.0.0.tgz":{"data":"` + base64.StdEncoding.EncodeToString(gitPack(t, own[20:40])) + `"}},"shasum":"` + strings.Repeat("0a", 20) + `"}`)}},
		"form of a sign-in page": {http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, [][]byte{[]byte("grant_type=refresh_token&refresh_token=placeholder&client_id=app_demo&scope=openid+profile")}},
	}
	maps.Copy(all, moreShapes(own))
	maps.Copy(all, uploads(t, own))
	return all
}

// TestOrdinaryWorkPasses pins what is found in what agents send: nothing is blocked, and what is made here makes no
// notes. Two kinds of text are not made here. Of this project's own source, notes are left open: its tests have
// placeholders and test vectors, which come and go. So they are of Go's standard library, whose version is the toolchain's; and
// that has a private key in the examples of its documentation, which to the scanner is one.
func TestOrdinaryWorkPasses(t *testing.T) {
	s := formScanner(t).withoutTokens()
	blocks := map[string]string{"model, standard": "private-key"}
	open := map[string]bool{
		"model, standard": true, "model, own source": true, "source as it is": true, "own source, base64": true, "model, zstd": true, "model, blocks": true,
	}
	for name, sh := range corpus(t) {
		size, blocked := 0, 0
		var noted []Finding
		for _, body := range sh.bodies {
			size += len(body)
			r, err := s.RequestBody(other, sh.header, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, r)
			var leak *LeakError
			switch {
			case errors.As(err, &leak) && leak.Finding.Rule == blocks[name]:
				blocked++
			case err != nil:
				t.Errorf("%s: %v", name, err)
			}
			noted = append(noted, r.Warnings()...)
		}
		t.Logf("%s: %d bodies, %d KB, %d blocked, %d notes", name, len(sh.bodies), size>>10, blocked, len(noted))
		if blocked > 1 {
			t.Errorf("%s: %d bodies are blocked", name, blocked)
		}
		if !open[name] && len(noted) > 0 {
			t.Errorf("%s: notes %+v", name, noted)
		}
	}
}

// withoutTokens returns a scanner that knows forms alone: the tests' own tokens are in the corpus, which has these files.
func (s *Scanner) withoutTokens() *Scanner { return New(nil).WithFormats(s.formats, s.policy) }
