package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
)

// maxKeyFile bounds what keys add reads, in bytes.
const maxKeyFile = 4 << 10

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, show and change the gossip keys",
		Long: `Keys changes the keys that gossip is encrypted with while the nodes run. Each call
changes one node: its ring, and its cluster.secret_file. To change to a new key
without a gap: "keys add" on every node, then "keys use" on every node, then
"keys remove" the old one on every node. Keys are named by fingerprints, the first 8
hex digits of their SHA-256; "keys list" shows how far the members have come.`,
		Example: `  pharos keys generate > new.key
  pharos keys add new.key
  pharos keys list`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysGenerate(), newKeysList(), newKeysAdd(),
		newKeysChange("use", "Send with a key that every node holds", "not every node of the configuration holds it, and those could not read this node any more",
			func(name string, force bool) admin.KeyChange { return admin.KeyChange{Use: name, Force: force} }),
		newKeysChange("remove", "Forget a key that nobody sends with", "a member still sends with it, and could not be read any more",
			func(name string, force bool) admin.KeyChange { return admin.KeyChange{Remove: name, Force: force} }))
	return cmd
}

func newKeysGenerate() *cobra.Command {
	var sign bool
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Print a new random key",
		Long: `Generate prints 32 random bytes in base64, as cluster.secret_file takes them. With
--sign they are the seed of a node's own signing key, for its cluster.sign_key_file;
the public_key that belongs to it goes to standard error, to be pasted into the
configuration under sites.SITE.nodes.NODE.`,
		Example: `  (umask 077; pharos keys generate > /etc/pharos/keys/gossip.key)
  (umask 077; pharos keys generate --sign > /etc/pharos/keys/fra1.seed)`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := make([]byte, 32) // as long as the seed of a signing key
			rand.Read(key)          // never fails: it ends the process
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(key)); err != nil || !sign {
				return err
			}
			public := ed25519.NewKeyFromSeed(key).Public().(ed25519.PublicKey)
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), "public_key: "+base64.StdEncoding.EncodeToString(public))
			return err
		},
	}
	cmd.Flags().BoolVar(&sign, "sign", false, "make the seed of a node's signing key, and show its public_key")
	return cmd
}

func newKeysList() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Show which node holds which keys",
		Long:    "List shows the fingerprints of the keys that every member says it holds, the one it\nsends with first. Exit code 2 means that two members cannot read each other.",
		Example: "  pharos keys list\n  pharos keys list -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			st, err := findClient(cmd, socket).Keys(cmd.Context())
			if err != nil {
				return err
			}
			return showKeys(cmd, st, format)
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	return cmd
}

func newKeysAdd() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:     "add FILE",
		Short:   "Accept a further key",
		Long:    "Add makes this node accept a key besides those it holds; it does not send with it\nyet. The key is read from FILE, or from standard input for \"-\": on the command line\neverybody on the machine could read it.",
		Example: "  pharos keys add new.key\n  pharos keys add - < new.key",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			key, err := readKey(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			st, err := findClient(cmd, socket).ChangeKeys(cmd.Context(), admin.KeyChange{Add: key})
			if err != nil {
				return err
			}
			return showKeys(cmd, st, format)
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	return cmd
}

func newKeysChange(verb, short, when string, change func(name string, force bool) admin.KeyChange) *cobra.Command {
	var socket, format string
	var force bool
	cmd := &cobra.Command{
		Use:     verb + " FINGERPRINT",
		Short:   short,
		Long:    short + ", on this node and in its cluster.secret_file. It is refused if\n" + when + ".",
		Example: "  pharos keys list\n  pharos keys " + verb + " 3f9a01c4",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			st, err := findClient(cmd, socket).ChangeKeys(cmd.Context(), change(args[0], force))
			if err != nil {
				return err
			}
			return showKeys(cmd, st, format)
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	cmd.Flags().BoolVar(&force, "force", false, "even if "+when)
	return cmd
}

// readKey returns the one key in a file; comments are passed over. An error
// never repeats what was read.
func readKey(name string, stdin io.Reader) (string, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", errors.New("the key's file cannot be opened; give the name of a file, or - for standard input")
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s in it, want one", count(len(found), "key"))
	}
	key, err := base64.StdEncoding.DecodeString(found[0])
	if err != nil || !slices.Contains([]int{16, 24, 32}, len(key)) {
		return "", errors.New("that is not a key: want 16, 24 or 32 bytes in base64; `pharos keys generate` makes one")
	}
	return found[0], nil
}

func showKeys(cmd *cobra.Command, st *admin.KeyStatus, format string) error {
	deaf := deafMembers(st)
	var err error
	if format == formatJSON {
		err = writeJSON(cmd.OutOrStdout(), st)
	} else {
		err = printKeys(cmd.OutOrStdout(), st, deaf)
	}
	if err == nil && len(deaf) > 0 {
		return errDegraded
	}
	return err
}

func printKeys(out io.Writer, st *admin.KeyStatus, deaf []string) error {
	if len(st.Keys) == 0 {
		fmt.Fprintln(out, "no key: gossip is neither encrypted nor authenticated")
	}
	w := newTable(out)
	fmt.Fprintln(w, "MEMBER\tSTATE\tSENDS WITH\tALSO ACCEPTS")
	for _, m := range st.Members {
		name, sends, accepts := m.Name, "–", "–"
		if m.Self {
			name += " (this)"
		}
		if len(m.Keys) > 0 {
			sends = m.Keys[0]
		}
		if len(m.Keys) > 1 {
			accepts = strings.Join(m.Keys[1:], " ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, m.State, sends, accepts)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, d := range deaf {
		fmt.Fprintln(out, "! "+d)
	}
	if st.File != "" {
		fmt.Fprintln(out, "this node's keys are in "+st.File)
	}
	return nil
}

// deafMembers says who does not hold the key that another sends with.
func deafMembers(st *admin.KeyStatus) (deaf []string) {
	for _, from := range st.Members {
		if len(from.Keys) == 0 {
			continue
		}
		var names []string
		for _, to := range st.Members {
			if len(to.Keys) > 0 && !slices.Contains(to.Keys, from.Keys[0]) {
				names = append(names, to.Name)
			}
		}
		if len(names) > 0 {
			deaf = append(deaf, fmt.Sprintf("%s sends with %s, which %s cannot read", from.Name, from.Keys[0], strings.Join(names, ", ")))
		}
	}
	return deaf
}
