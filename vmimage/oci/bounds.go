package oci

import "fmt"

// Bounds of a base image, which may be anybody's. The tree of a million entries takes some 300 MB.
const (
	maxArchiveEntries = 10_000
	maxJSON           = 8 << 20 // manifests and configurations
	maxIndexes        = 16
	maxLayers         = 512
	maxEntries        = 1_000_000
	maxNames          = 128 << 20 // bytes
	maxPath           = 4096 - 1  // PATH_MAX without its NUL
	maxDepth          = 256
	maxSteps          = 100_000_000 // an image of 200,000 files takes some two million
	maxLinks          = 40          // as Linux follows (path_resolution(7))
	maxUnpacked       = 64 << 30    // bytes
	maxContent        = 16 << 20    // bytes of a file that is read
	maxContents       = 64          // files that are read
	maxWindow         = 128 << 20
)

// BoundError reports an image that would take more than it may.
type BoundError struct {
	What string // what there is too much of
	Most int64  // how much there may be
}

// Error names what is too large.
func (e *BoundError) Error() string { return fmt.Sprintf("%s: more than %d", e.What, e.Most) }
