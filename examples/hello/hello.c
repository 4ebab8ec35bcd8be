/* What the demo runs: says what it sees of the world from inside its pod. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *greeting = getenv("GREETING");
	printf("%s, %s.\n", greeting ? greeting : "Hello", argc > 1 ? argv[1] : "world");
	printf("I am process %d, user %d, with no Node and no daemon around me.\n", (int)getpid(), (int)getuid());
	printf("My root holds:");
	DIR *root = opendir("/");
	for (struct dirent *entry; root && (entry = readdir(root));)
		if (entry->d_name[0] != '.')
			printf(" %s", entry->d_name);
	puts("");
	return 0;
}
