/* Addresses and routes that the pod's networks gave (rtnetlink(7)). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/die.h"
#include "guest.h"

struct request {
    struct nlmsghdr head;
    char room[512];
};

static void add_attribute(struct request *request, unsigned short type, const void *data, unsigned short length)
{
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->head.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), data, length);
    request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

static void ask_kernel(struct request *request, const char *what, const char *subject)
{
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        char room[1024];
    } answer;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || send(fd, request, request->head.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < (ssize_t)NLMSG_LENGTH(sizeof answer.error))
        fail_errno("can't %s %s", what, subject);
    close(fd);
    if (answer.head.nlmsg_type == NLMSG_ERROR && answer.error.error != 0 && answer.error.error != -EEXIST) {
        errno = -answer.error.error;
        fail_errno("can't %s %s", what, subject);
    }
}

static int index_of(const char *name)
{
    unsigned index = if_nametoindex(name);
    if (index == 0)
        fail_errno("can't find interface %s", name);
    return (int)index;
}

/* Family, bytes and prefix of `ADDRESS/PREFIX` or `ADDRESS`. */
static int parse_address(const char *text, unsigned char bytes[16], unsigned char *prefix)
{
    char address[64];
    snprintf(address, sizeof address, "%s", text);
    char *slash = strchr(address, '/');
    if (slash)
        *slash++ = '\0';
    int family = strchr(address, ':') ? AF_INET6 : AF_INET;
    *prefix = (unsigned char)(slash ? atoi(slash) : family == AF_INET ? 32 : 128);
    if (inet_pton(family, address, bytes) != 1)
        fail("\"%s\" is no address", text);
    return family;
}

void bring_up(const char *name)
{
    struct request request = { .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)), .nlmsg_type = RTM_NEWLINK,
                                         .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK } };
    struct ifinfomsg *info = NLMSG_DATA(&request.head);
    *info = (struct ifinfomsg){ .ifi_index = index_of(name), .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    ask_kernel(&request, "bring up", name);
}

void rename_interface(const char *mac, const char *name)
{
    struct dirent *entry;
    char path[512], found[64];
    DIR *dir = opendir("/sys/class/net");
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "/sys/class/net/%.100s/address", entry->d_name);
        FILE *file = fopen(path, "re");
        bool is_it = file && fgets(found, sizeof found, file) && strncasecmp(found, mac, 17) == 0;
        if (file)
            fclose(file);
        if (!is_it)
            continue;
        struct request request = { .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)), .nlmsg_type = RTM_NEWLINK,
                                             .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK } };
        struct ifinfomsg *info = NLMSG_DATA(&request.head);
        *info = (struct ifinfomsg){ .ifi_index = index_of(entry->d_name) };
        if (strcmp(entry->d_name, name) != 0) {
            add_attribute(&request, IFLA_IFNAME, name, (unsigned short)(strlen(name) + 1));
            ask_kernel(&request, "name interface", name);
        }
        closedir(dir);
        bring_up(name);
        return;
    }
    fail("the machine has no interface %s", mac);
}

void add_address(const char *name, const char *cidr)
{
    unsigned char bytes[16], prefix;
    int family = parse_address(cidr, bytes, &prefix);
    struct request request = { .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)), .nlmsg_type = RTM_NEWADDR,
                                         .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL } };
    struct ifaddrmsg *info = NLMSG_DATA(&request.head);
    *info = (struct ifaddrmsg){ .ifa_family = (unsigned char)family, .ifa_prefixlen = prefix, .ifa_index = (unsigned)index_of(name),
                                /* nobody else can have it: no time for duplicate address detection */
                                .ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0 };
    unsigned short length = family == AF_INET ? 4 : 16;
    add_attribute(&request, IFA_LOCAL, bytes, length);
    add_attribute(&request, IFA_ADDRESS, bytes, length);
    ask_kernel(&request, "give the interface address", cidr);
}

void add_route(const char *name, const char *cidr, const char *gateway)
{
    unsigned char to[16], via[16], prefix, unused;
    int family = parse_address(cidr, to, &prefix), index = index_of(name);
    struct request request = { .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)), .nlmsg_type = RTM_NEWROUTE,
                                         .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE } };
    struct rtmsg *route = NLMSG_DATA(&request.head);
    bool has_gateway = strcmp(gateway, "-") != 0;
    *route = (struct rtmsg){ .rtm_family = (unsigned char)family, .rtm_dst_len = prefix, .rtm_table = RT_TABLE_MAIN,
                             .rtm_protocol = RTPROT_BOOT, .rtm_scope = has_gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                             .rtm_type = RTN_UNICAST };
    unsigned short length = family == AF_INET ? 4 : 16;
    if (prefix > 0)
        add_attribute(&request, RTA_DST, to, length);
    if (has_gateway) {
        parse_address(gateway, via, &unused);
        add_attribute(&request, RTA_GATEWAY, via, length);
    }
    add_attribute(&request, RTA_OIF, &index, sizeof index);
    ask_kernel(&request, "set the route to", cidr);
}
