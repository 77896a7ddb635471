package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// checkHead reads the entries of an export, bundle by bundle, and compares the tree that they make with its checkpoint:
// no entry is proven by itself, and no tile is looked at.
func checkHead(dir string, trusted trust) (string, error) {
	keys := trusted.keys
	if keys == nil {
		var err error
		if keys, err = os.ReadFile(filepath.Join(dir, "vkeys")); err != nil {
			return "", err
		}
	}
	known, err := parseKeys(string(keys))
	if err != nil {
		return "", err
	}
	octets, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return "", err
	}
	head, err := openCheckpoint(octets, known, trusted.all)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	var tree hashes
	for n := int64(0); n < head.size; {
		path := tilePath("entries", n/width, min(width, head.size-n))
		bundle, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return "", err
		}
		entries, err := unpack(bundle)
		if err == nil && int64(len(entries)) != min(width, head.size-n) {
			err = errors.New("there are too few or too many entries")
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		for _, entry := range entries {
			stored, err := tlog.StoredHashes(n, entry, tree)
			if err != nil {
				return "", err
			}
			tree = append(tree, stored...)
			n++
		}
	}
	if err := compareRoot(tree, head); err != nil {
		return "", err
	}
	return fmt.Sprintf("the root is that of %d entries of %s, signed by %s", head.size, head.origin, head.signers), nil
}
