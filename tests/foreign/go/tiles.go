package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8
	width  = 1 << height
)

// hashes are all the hashes of a tree, in the order of tlog.StoredHashes.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	read := make([]tlog.Hash, len(indexes))
	for n, index := range indexes {
		if index >= int64(len(h)) {
			return nil, fmt.Errorf("there is no hash %d", index)
		}
		read[n] = h[index]
	}
	return read, nil
}

// readEntries reads the entries and makes their tree.
func readEntries(files export, size int64) (hashes, [][]byte, error) {
	var tree hashes
	var entries [][]byte
	for n := int64(0); n*width < size; n++ {
		path := tilePath("entries", n, min(width, size-n*width))
		bundle, isThere := files[path]
		if !isThere {
			return nil, nil, fmt.Errorf("%s is missing", path)
		}
		read, err := unpack(bundle)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		if int64(len(read)) != min(width, size-n*width) {
			return nil, nil, fmt.Errorf("%s has %d entries", path, len(read))
		}
		for _, entry := range read {
			stored, err := tlog.StoredHashes(int64(len(entries)), entry, tree)
			if err != nil {
				return nil, nil, err
			}
			tree = append(tree, stored...)
			entries = append(entries, entry)
		}
	}
	return tree, entries, nil
}

// checkTiles compares every file below tile/ with what the entries say, and misses none.
func checkTiles(files export, tree hashes, entries [][]byte, size int64) error {
	expected := map[string]bool{}
	for _, tile := range tlog.NewTiles(height, 0, size) {
		if int64(tile.W) == min(width, size>>(height*tile.L)-tile.N*width) { // it names narrower ones, too
			expected[tilePath(fmt.Sprint(tile.L), tile.N, int64(tile.W))] = true
		}
	}
	for n := int64(0); n*width < size; n++ {
		expected[tilePath("entries", n, min(width, size-n*width))] = true
	}
	for path := range expected {
		if _, isThere := files[path]; !isThere {
			return fmt.Errorf("%s is missing", path)
		}
	}
	for path, content := range files {
		if !strings.HasPrefix(path, "tile/") {
			continue
		}
		right, err := tileOf(path, tree, entries, size)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !bytes.Equal(content, right) {
			return fmt.Errorf("%s is not what the entries say", path)
		}
	}
	return nil
}

// tileOf makes the tile that belongs at a path.
func tileOf(path string, tree hashes, entries [][]byte, size int64) ([]byte, error) {
	parts := strings.SplitN(path, "/", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("this is no path of a tile")
	}
	name, partial := parts[2], int64(width)
	if at := strings.Index(name, ".p/"); at >= 0 {
		if _, err := fmt.Sscanf(name[at:], ".p/%d", &partial); err != nil {
			return nil, err
		}
		name = name[:at]
	}
	var n int64
	for _, group := range strings.Split(strings.ReplaceAll(name, "x", ""), "/") {
		var digits int64
		if _, err := fmt.Sscanf(group, "%d", &digits); err != nil {
			return nil, err
		}
		n = n*1000 + digits
	}
	if partial < 1 || partial > width || tilePath(parts[1], n, partial) != path {
		return nil, fmt.Errorf("this is no path of a tile")
	}
	if parts[1] == "entries" {
		if n*width+partial > size {
			return nil, fmt.Errorf("the log has no such entries")
		}
		return pack(entries[n*width : n*width+partial]), nil
	}
	var level int
	if _, err := fmt.Sscanf(parts[1], "%d", &level); err != nil || fmt.Sprint(level) != parts[1] || level > 7 {
		return nil, fmt.Errorf("this is no level of tiles")
	}
	if n*width+partial > size>>(height*level) {
		return nil, fmt.Errorf("the log has no such hashes")
	}
	return tlog.ReadTileData(tlog.Tile{H: height, L: level, N: n, W: int(partial)}, tree)
}

func tilePath(kind string, n, partial int64) string {
	groups := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		groups = fmt.Sprintf("x%03d/%s", n%1000, groups)
	}
	if partial < width {
		return fmt.Sprintf("tile/%s/%s.p/%d", kind, groups, partial)
	}
	return fmt.Sprintf("tile/%s/%s", kind, groups)
}

func unpack(bundle []byte) ([][]byte, error) {
	var entries [][]byte
	for len(bundle) > 0 {
		if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
			return nil, fmt.Errorf("it ends within entry %d", len(entries))
		}
		end := 2 + int(binary.BigEndian.Uint16(bundle))
		entries = append(entries, bundle[2:end])
		bundle = bundle[end:]
	}
	return entries, nil
}

func pack(entries [][]byte) []byte {
	var bundle []byte
	for _, entry := range entries {
		bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
	}
	return bundle
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
