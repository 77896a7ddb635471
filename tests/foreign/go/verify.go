// Verify checks an exported log with Go's checksum database packages, which know nothing of the software that wrote it.
//
//	verify [-key FILE] [-since CHECKPOINT] [-all] [-flip] DIR
//	verify [-key FILE] [-all] -head DIR
//	verify -key FILE -receipt FILE ENTRY
//
// DIR is in the layout of C2SP tlog-tiles: checkpoint, vkeys (a verifier key a line), tile/entries/..., tile/<L>/...
// Exit 0: all of it is whole. Exit 1: something is not; the reason is on stderr. Exit 2: it was called wrongly.
//
//	-key    trust these verifier keys instead of those in DIR/vkeys, which whoever forged DIR has forged too
//	-since  the log has to continue this older checkpoint, which was kept elsewhere
//	-all    every key has to have signed, and nobody else may have
//	-flip   besides, flip every bit of every file in memory: each of these exports has to be rejected
//	-head   compare the root of the entries with the checkpoint, and nothing else: for a log of millions
//
//	-receipt  check this receipt (C2SP tlog-proof), by its own checkpoint, for the entry in a file
//
// ML-DSA-44 signatures are named but not checked, nor flipped: these packages cannot.
// Never tlog.TileHashReader: with golang.org/x/mod 0.7.0 it accepts an edited entry together with its edited tile.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// export is a directory in memory: path below it -> content.
type export map[string][]byte

type trust struct {
	keys  []byte // nil: those in the export
	since []byte // nil: none
	all   bool
}

func main() {
	keyFile := flag.String("key", "", "trust the verifier keys in this `file`")
	sinceFile := flag.String("since", "", "the log has to continue the checkpoint in this `file`")
	all := flag.Bool("all", false, "every key has to have signed, and nobody else")
	flip := flag.Bool("flip", false, "flip every bit in memory, too")
	headOnly := flag.Bool("head", false, "compare nothing but the root of the entries")
	receiptFile := flag.String("receipt", "", "check the receipt in this `file`, of the entry that is given in place of DIR")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if (*headOnly || *receiptFile != "") && (*sinceFile != "" || *flip) {
		flag.Usage()
		os.Exit(2)
	}
	trusted := trust{all: *all}
	var err error
	if *keyFile != "" {
		trusted.keys, err = os.ReadFile(*keyFile)
		fatal(err)
	}
	if *headOnly {
		said, err := checkHead(flag.Arg(0), trusted)
		fatal(err)
		fmt.Println(said)
		return
	}
	if *receiptFile != "" {
		said, err := checkReceipt(*receiptFile, flag.Arg(0), trusted.keys)
		fatal(err)
		fmt.Println(said)
		return
	}
	files, err := readExport(flag.Arg(0))
	fatal(err)
	if trusted.keys != nil {
		delete(files, "vkeys")
	}
	if *sinceFile != "" {
		trusted.since, err = os.ReadFile(*sinceFile)
		fatal(err)
	}
	said, err := verify(files, trusted)
	fatal(err)
	fmt.Println(said)
	if *flip {
		fatal(flipEveryBit(files, trusted))
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "rejected:", err)
		os.Exit(1)
	}
}

// readExport reads the checkpoint, the keys and all that is below tile/.
func readExport(dir string) (export, error) {
	files := export{}
	for _, name := range []string{"checkpoint", "vkeys"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			files[name] = content
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	root := filepath.Join(dir, "tile")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == root {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	})
	return files, err
}

// verify checks everything; it gives a sentence about what it has seen.
func verify(files export, trusted trust) (string, error) {
	keys := trusted.keys
	if keys == nil {
		keys = files["vkeys"]
	}
	known, err := parseKeys(string(keys))
	if err != nil {
		return "", err
	}
	head, err := openCheckpoint(files["checkpoint"], known, trusted.all)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	tree, entries, err := readEntries(files, head.size)
	if err != nil {
		return "", err
	}
	if err := checkRoot(tree, entries, head); err != nil {
		return "", err
	}
	if err := checkTiles(files, tree, entries, head.size); err != nil {
		return "", err
	}
	if trusted.since != nil {
		if err := checkSince(trusted.since, known, tree, head); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("whole: %d entries of %s, signed by %s", head.size, head.origin, head.signers), nil
}

// compareRoot compares the tree of all entries with the checkpoint.
func compareRoot(tree hashes, head checkpoint) error {
	root := tlog.Hash(sha256.Sum256(nil))
	if head.size > 0 {
		var err error
		if root, err = tlog.TreeHash(head.size, tree); err != nil {
			return err
		}
	}
	if root != head.root {
		return fmt.Errorf("the entries have the root %v, the checkpoint says %v", root, head.root)
	}
	return nil
}

// checkRoot compares the tree of all entries with the checkpoint, and proves each entry.
func checkRoot(tree hashes, entries [][]byte, head checkpoint) error {
	if err := compareRoot(tree, head); err != nil {
		return err
	}
	for n, entry := range entries {
		proof, err := tlog.ProveRecord(head.size, int64(n), tree)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, head.size, head.root, int64(n), tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %w", n, err)
		}
	}
	return nil
}

// checkSince proves that the log continues an older checkpoint.
func checkSince(older []byte, known []key, tree hashes, head checkpoint) error {
	since, err := openCheckpoint(older, known, false)
	if err != nil {
		return fmt.Errorf("older checkpoint: %w", err)
	}
	switch {
	case since.origin != head.origin:
		return fmt.Errorf("the older checkpoint is of another log, %s", since.origin)
	case since.size > head.size:
		return fmt.Errorf("rolled back: %d entries were signed, %d are there", since.size, head.size)
	case since.size == 0:
		return nil
	}
	proof, err := tlog.ProveTree(head.size, since.size, tree)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, head.size, head.root, since.size, since.root); err != nil {
		return fmt.Errorf("the first %d entries are not those that were signed before: %w", since.size, err)
	}
	return nil
}

// flipEveryBit rejects an export of which one bit can be flipped so that it is still accepted as it is. Signatures that
// cannot be checked here are left as they are.
func flipEveryBit(files export, trusted trust) error {
	var names, accepted []string
	keys := trusted.keys
	if keys == nil {
		keys = files["vkeys"]
	}
	spared, err := unchecked(files["checkpoint"], string(keys))
	if err != nil {
		return err
	}
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	count := 0
	for _, name := range names {
		content := files[name]
		files[name] = append([]byte(nil), content...)
		for bit := 0; bit < 8*len(content); bit++ {
			if name == "checkpoint" && spared[bit/8] {
				continue
			}
			count++
			files[name][bit/8] ^= 1 << (bit % 8)
			if _, err := verify(files, trusted); err == nil {
				accepted = append(accepted, fmt.Sprintf("%s: byte %d, bit %d", name, bit/8, bit%8))
			}
			files[name][bit/8] ^= 1 << (bit % 8)
		}
	}
	if len(accepted) > 0 {
		return fmt.Errorf("%d of %d flips were accepted:\n%s", len(accepted), count, strings.Join(accepted, "\n"))
	}
	fmt.Printf("each of %d flips was rejected\n", count)
	return nil
}
