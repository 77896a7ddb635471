"""What Sophon does in a second, beside what its peers do in the same minute on the same machine."""
