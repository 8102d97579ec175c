package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"gatewayd/plan"
	"gatewayd/vmimage"
)

// Labels of an image that was made here.
const (
	LabelBottle = "gatewayd.bottle"
	LabelPlan   = "gatewayd.plan" // the plan's digest
)

// Result is an image with a bottle's layer on top.
type Result struct {
	// Image reads from the Base until that is closed.
	Image v1.Image
	// Changed are the files that the layer holds, sorted, without the directories that lead there.
	Changed []string
	// Notes are sentences for the operator: what could not be done.
	Notes []string
}

// ErrLent says that a plan lends a credential: an image is kept and copied, a lent token must not be.
var ErrLent = errors.New("the plan lends the guest a credential of the host, and an image would keep it: mount or copy what " +
	"gatewayd guest writes instead, or set forward_host_credentials to true or false")

// Add puts the layer of a plan on top of the image and its environment into the image's configuration. The guest files are
// those of vmimage.GuestFiles but for the Smolfile; those of the agent belong to the user whom the image names. The
// authority goes into the bundles and Java key stores that the image has, and where its distribution looks for more when it
// makes these anew. The same base, plan and inputs give the same digest. It blocks while it reads layers again. The error is
// ErrLent, a *BoundError, or says which file of the image is in the way.
func (b *Base) Add(ctx context.Context, p *plan.Plan, in vmimage.Inputs) (*Result, error) {
	if slices.ContainsFunc(p.Files, func(f plan.GuestFile) bool { return len(f.Fill) > 0 }) {
		return nil, fmt.Errorf("make image of %s: %w", p.Bottle, ErrLent)
	}
	in.At = cmp.Or(in.At, vmimage.DefaultAt)
	files, err := vmimage.GuestFiles(p, in)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(in.CAPEM)
	if block == nil {
		return nil, fmt.Errorf("make image of %s: the authority's certificate is no PEM block", p.Bottle)
	}
	d := &draft{base: b, changes: map[string]change{}, name: "gatewayd-" + p.Bottle, ca: in.CAPEM, der: block.Bytes}
	if err := d.fill(ctx, p, in, files); err != nil {
		return nil, fmt.Errorf("make image of %s: %w", p.Bottle, err)
	}
	tarFile, err := d.write()
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", p.Bottle, err)
	}
	r := &Result{Notes: d.notes}
	for _, name := range slices.Sorted(maps.Keys(d.changes)) {
		if !d.changes[name].dir {
			r.Changed = append(r.Changed, name)
		}
	}
	if r.Image, err = b.with(tarFile, p, in.At); err != nil {
		return nil, fmt.Errorf("make image of %s: %w", p.Bottle, err)
	}
	return r, nil
}

// fill drafts the whole layer.
func (d *draft) fill(ctx context.Context, p *plan.Plan, in vmimage.Inputs, files []vmimage.File) error {
	stores := d.findStores()
	contents, err := d.base.contents(ctx, d.wanted(stores))
	if err != nil {
		return err
	}
	d.contents = contents
	owner, err := d.user(d.base.file.Config.User)
	if err != nil {
		return err
	}
	agent := map[string]bool{"env": true}
	for _, f := range p.Files {
		agent[f.Path] = true
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) { // agents write beside their files
			if err := d.set(path.Join(in.At, dir), change{dir: true, mode: 0o700, owner: owner}); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		c := change{mode: int64(f.Mode.Perm()), data: f.Data}
		if agent[f.Path] {
			c.owner = owner
		}
		switch f.Path {
		case "Smolfile": // how the host makes a machine is none of the guest's business
			continue
		case plan.BundleFile:
			d.bundle = f.Data
		}
		if err := d.set(path.Join(in.At, f.Path), c); err != nil {
			return err
		}
	}
	return d.trust(stores, in.At)
}

// with puts the layer and the environment into place.
func (b *Base) with(tarFile []byte, p *plan.Plan, at string) (v1.Image, error) {
	image, err := b.image()
	if err != nil {
		return nil, err
	}
	media := types.OCIUncompressedLayer
	if b.media == types.DockerManifestSchema2 {
		media = types.DockerUncompressedLayer
	}
	image, err = mutate.Append(image, mutate.Addendum{Layer: layerOf(tarFile, media),
		History: v1.History{Created: b.file.Created, CreatedBy: "gatewayd image " + p.Bottle}})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Config.Env = mergeEnv(file.Config.Env, p.Env, at)
	if file.Config.Labels == nil {
		file.Config.Labels = map[string]string{}
	}
	file.Config.Labels[LabelBottle], file.Config.Labels[LabelPlan] = p.Bottle, p.Digest()
	return mutate.ConfigFile(image, file)
}

// javaOptions is a list of options, to which one is added; any other variable has one value, which the bottle's replaces.
const javaOptions = "JAVA_TOOL_OPTIONS"

// mergeEnv adds the plan's variables to those of the image.
func mergeEnv(have []string, plan []plan.EnvVar, at string) []string {
	out := slices.Clone(have)
	for _, e := range plan {
		value := e.Resolve(at)
		i := slices.IndexFunc(out, func(kv string) bool { return strings.HasPrefix(kv, e.Name+"=") })
		if i < 0 {
			out = append(out, e.Name+"="+value)
			continue
		}
		old := strings.TrimPrefix(out[i], e.Name+"=")
		if e.Name == javaOptions && old != "" {
			if slices.Contains(strings.Fields(old), value) {
				continue
			}
			value = old + " " + value
		}
		out[i] = e.Name + "=" + value
	}
	return out
}

// withCertificate appends the authority to a bundle, unless it is there.
func withCertificate(bundle, ca, der []byte) []byte {
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if bytes.Equal(block.Bytes, der) {
			return bundle
		}
	}
	out := bytes.Clone(bundle)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(append(out, bytes.TrimSpace(ca)...), '\n')
}
