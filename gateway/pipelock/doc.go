// Package pipelock scans what leaves a bottle for credentials on their way to
// where they do not belong: the dummies that the guest holds, which are
// canaries everywhere but at home, and whatever else the plan names exactly.
//
// It looks at URLs, header values and bodies, in the encodings that
// needle.Forms lists, and into bodies with a content encoding. It makes no
// claim beyond that: a guest that encrypts, splits or re-encodes a token in a
// way of its own gets it past any scanner.
//
// Bytes are held back only while they may still be part of a token, so that
// streams stay live; memory per stream is bounded by the longest form of a
// token and, for encoded bodies, by the constants in encoded.go.
package pipelock
