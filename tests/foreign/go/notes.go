package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	typeEd25519     = 0x01
	typeCosignature = 0x04
	typeMLDSA44     = 0x06
)

// key is a verifier key; verifier is nil for a type that cannot be checked here. It signs checkpoints of since entries
// at least, and of until at most; -1: of any number.
type key struct {
	name         string
	id           uint32
	isLog        bool
	since, until int64
	verifier     note.Verifier
}

func (k key) signs(size int64) bool {
	return k.since <= size && (k.until < 0 || size <= k.until)
}

type checkpoint struct {
	origin  string
	size    int64
	root    tlog.Hash
	signers string
}

// parseKeys reads verifier keys, one a line.
func parseKeys(text string) ([]key, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 || lines[len(lines)-1] != "" {
		return nil, errors.New("vkeys: there are no keys, or the last line has no end")
	}
	var keys []key
	for _, line := range lines[:len(lines)-1] {
		parsed, err := parseTerm(line)
		if err != nil {
			return nil, fmt.Errorf("vkeys: %w", err)
		}
		keys = append(keys, parsed)
	}
	return keys, nil
}

// parseTerm reads a key, alone or with the first and the last size that it signs ("-": it still does).
func parseTerm(line string) (key, error) {
	words := strings.Split(line, " ")
	parsed, err := parseKey(words[0])
	if err != nil || len(words) == 1 {
		return parsed, err
	}
	if len(words) != 3 {
		return parsed, fmt.Errorf("%q is no verifier key with the sizes that it signs", line)
	}
	if parsed.since, err = parseSize(words[1]); err == nil && words[2] != "-" {
		parsed.until, err = parseSize(words[2])
	}
	return parsed, err
}

func parseSize(text string) (int64, error) {
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != text {
		return 0, fmt.Errorf("%q is no size", text)
	}
	return size, nil
}

func parseKey(line string) (key, error) {
	parts := strings.SplitN(line, "+", 3)
	if len(parts) != 3 || len(parts[1]) != 8 || strings.ToLower(parts[1]) != parts[1] {
		return key{}, fmt.Errorf("%q is no verifier key", line)
	}
	id, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return key{}, err
	}
	typed, err := strictBase64(parts[2])
	if err != nil || len(typed) < 2 {
		return key{}, fmt.Errorf("%q is no verifier key", line)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), typed...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(id) {
		return key{}, fmt.Errorf("%q has another id", line)
	}
	parsed := key{name: parts[0], id: uint32(id), isLog: typed[0] != typeCosignature, until: -1}
	switch {
	case typed[0] == typeEd25519:
		parsed.verifier, err = note.NewVerifier(line)
	case typed[0] == typeCosignature && len(typed) == 1+ed25519.PublicKeySize:
		parsed.verifier = cosigner{parsed.name, parsed.id, typed[1:]}
	case typed[0] == typeMLDSA44:
	default:
		err = fmt.Errorf("%q is of an unknown type", line)
	}
	return parsed, err
}

// cosigner verifies cosignature/v1: a time, then an Ed25519 signature over that time and the checkpoint.
type cosigner struct {
	name   string
	id     uint32
	public ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.id }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.public, []byte(signed), sig[8:])
}

// openCheckpoint opens a note that a key of its log has signed which signs as many entries. With all, every such key
// has, and nobody else.
func openCheckpoint(octets []byte, known []key, all bool) (checkpoint, error) {
	var verifiers []note.Verifier
	for _, one := range known {
		if one.verifier != nil {
			verifiers = append(verifiers, one.verifier)
		}
	}
	opened, err := note.Open(octets, note.VerifierList(verifiers...))
	if err != nil {
		return checkpoint{}, err
	}
	if err := oneSpelling(opened, octets); err != nil {
		return checkpoint{}, err
	}
	head, err := parseCheckpoint(opened.Text)
	if err != nil {
		return head, err
	}
	byLog := false
	var signers []string
	for _, one := range known {
		if !one.signs(head.size) {
			continue
		}
		signed := one.verifier == nil && has(opened.UnverifiedSigs, one) || has(opened.Sigs, one)
		if all && !signed {
			return head, fmt.Errorf("not signed by %s", one.name)
		}
		if !signed {
			continue
		}
		if one.verifier == nil {
			signers = append(signers, one.name+" (not checked: ML-DSA-44)")
			continue
		}
		signers = append(signers, one.name)
		byLog = byLog || one.isLog && one.name == head.origin
	}
	if all && len(signers) != len(opened.Sigs)+len(opened.UnverifiedSigs) {
		return head, errors.New("signed by somebody else, too")
	}
	if !byLog {
		return head, fmt.Errorf("not signed by a key of its log that signs %d entries", head.size)
	}
	head.signers = strings.Join(signers, ", ")
	return head, nil
}

func has(signatures []note.Signature, one key) bool {
	for _, signature := range signatures {
		if signature.Name == one.name && signature.Hash == one.id {
			return true
		}
	}
	return false
}

// unchecked tells which bytes of a note belong to lines with signatures that cannot be checked here.
func unchecked(octets []byte, keys string) (map[int]bool, error) {
	known, err := parseKeys(keys)
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	at := 0
	for _, line := range strings.SplitAfter(string(octets), "\n") {
		for _, one := range known {
			var id [4]byte
			binary.BigEndian.PutUint32(id[:], one.id)
			// Five characters of base64 are 30 bits of the id: the sixth has others beside the last two.
			begin := "— " + one.name + " " + base64.StdEncoding.EncodeToString(id[:])[:5]
			if one.verifier == nil && strings.HasPrefix(line, begin) {
				for n := 0; n < len(line)-1; n++ {
					found[at+n] = true
				}
			}
		}
		at += len(line)
	}
	return found, nil
}

// oneSpelling rejects what note.Open lets through: signatures in another spelling of base64, and the like.
func oneSpelling(opened *note.Note, octets []byte) error {
	lines := map[string]bool{}
	for _, signature := range append(append([]note.Signature(nil), opened.Sigs...), opened.UnverifiedSigs...) {
		if _, err := strictBase64(signature.Base64); err != nil {
			return err
		}
		lines[fmt.Sprintf("— %s %s", signature.Name, signature.Base64)] = true
	}
	rest := strings.TrimPrefix(string(octets), opened.Text+"\n")
	if rest == string(octets) || !strings.HasSuffix(rest, "\n") {
		return errors.New("the note is in another spelling")
	}
	for _, line := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		if !lines[line] {
			return fmt.Errorf("the note has the line %q", line)
		}
	}
	return nil
}

func strictBase64(text string) ([]byte, error) {
	octets, err := base64.StdEncoding.DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(octets) != text {
		return nil, fmt.Errorf("%q is no base64 in its only spelling", text)
	}
	return octets, nil
}

func parseCheckpoint(text string) (head checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] == "" || lines[len(lines)-1] != "" {
		return head, errors.New("there are too few lines")
	}
	head.origin = lines[0]
	if head.size, err = parseSize(lines[1]); err != nil {
		return head, err
	}
	root, err := strictBase64(lines[2])
	if err == nil && len(root) != tlog.HashSize {
		err = errors.New("the root is no hash")
	}
	copy(head.root[:], root)
	return head, err
}
