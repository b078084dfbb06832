package handover

import "os"

// wordPrefix begins the names of words in the environment.
const wordPrefix = "PHAROS_LEFT_"

// Leave leaves a word for the process that will take over, which finds it with Left. It goes with the
// environment, so it may be left at any time before that process is started.
func Leave(key, word string) { _ = os.Setenv(wordPrefix+key, word) } // fails for bad keys only

// Left returns what the process before has left, or this one; "" if nothing.
func Left(key string) string { return os.Getenv(wordPrefix + key) }
