package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// checkReceipt checks a receipt (C2SP tlog-proof) of an entry: both are files.
func checkReceipt(receiptFile, entryFile string, keys []byte) (string, error) {
	receipt, err := os.ReadFile(receiptFile)
	if err != nil {
		return "", err
	}
	entry, err := os.ReadFile(entryFile)
	if err != nil {
		return "", err
	}
	index, proof, note, err := parseReceipt(string(receipt))
	if err != nil {
		return "", err
	}
	known, err := parseKeys(string(keys))
	if err != nil {
		return "", err
	}
	head, err := openCheckpoint([]byte(note), known, false)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	if err := tlog.CheckRecord(proof, head.size, head.root, index, tlog.RecordHash(entry)); err != nil {
		return "", err
	}
	return fmt.Sprintf("whole: entry %d of %s", index, head.origin), nil
}

// parseReceipt reads the index of the entry, the hashes on its way to the root, and the checkpoint.
func parseReceipt(text string) (index int64, proof tlog.RecordProof, note string, err error) {
	head, note, found := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
		return 0, nil, "", errors.New("this is no receipt")
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return 0, nil, "", errors.New("the receipt has no index")
	}
	if index, err = parseSize(strings.TrimPrefix(lines[0], "index ")); err != nil {
		return 0, nil, "", err
	}
	for _, line := range lines[1:] {
		octets, err := strictBase64(line)
		if err != nil || len(octets) != tlog.HashSize {
			return 0, nil, "", fmt.Errorf("%q is no hash", line)
		}
		var hash tlog.Hash
		copy(hash[:], octets)
		proof = append(proof, hash)
	}
	return index, proof, note, nil
}
