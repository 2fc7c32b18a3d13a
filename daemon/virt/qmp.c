/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/qmp.h"

#include <errno.h>
#include <string.h>

#define SLOTS 32

/* PCI ids: QEMU's include/hw/pci/pci.h and pci_ids.h */
#define VENDOR_INTEL     0x8086
#define VENDOR_REDHAT    0x1b36
#define INTEL_440FX      0x1237
#define INTEL_IOH3420    0x3420
#define REDHAT_ROOT_PORT 0x000c

/* "" where it is no string or not there */
static const char *string(const json_t *object, const char *key)
{
        const char *s = json_string_value(json_object_get(object, key));

        return s ? s : "";
}

/* -1 where it is no number or not there */
static json_int_t number(const json_t *object, const char *key)
{
        const json_t *n = json_object_get(object, key);

        return json_is_integer(n) ? json_integer_value(n) : -1;
}

static int refused(const json_t *error, char **ret_message)
{
        if (ret_message)
                *ret_message = strdup(string(error, "desc"));
        return strcmp(string(error, "class"), "DeviceNotFound") == 0 ? -ENODEV : -EREMOTEIO;
}

int bl_qmp_answer(const char *text, json_t **ret, char **ret_message)
{
        json_t *answer = text ? json_loads(text, 0, NULL) : NULL;
        json_t *error = json_object_get(answer, "error"), *result = json_object_get(answer, "return");
        int r = 0;

        if (error)
                r = refused(error, ret_message);
        else if (!result)
                r = -EBADMSG;
        else if (ret)
                *ret = json_incref(result);
        json_decref(answer);
        return r;
}

bool bl_qmp_has_child(const json_t *list, const char *name)
{
        const json_t *one;
        size_t i;

        json_array_foreach(list, i, one) if (strcmp(string(one, "name"), name) == 0 &&
                                             strncmp(string(one, "type"), "child<", 6) == 0) return true;
        return false;
}

bool bl_qmp_has_node(const json_t *list, const char *name)
{
        const json_t *one;
        size_t i;

        json_array_foreach(list, i, one) if (strcmp(string(one, "node-name"), name) == 0) return true;
        return false;
}

bool bl_qmp_bus_is_used(const json_t *list)
{
        const json_t *one;
        size_t i;

        json_array_foreach(list, i, one) if (strncmp(string(one, "name"), "child[", 6) == 0) return true;
        return false;
}

/* A socket is "unix:..." while it is connected and "disconnected:..." when it is not. */
enum bl_qmp_chardev bl_qmp_chardev(const json_t *list, const char *label)
{
        const json_t *one;
        size_t i;

        json_array_foreach(list, i, one) if (strcmp(string(one, "label"), label) ==
                                             0) return strncmp(string(one, "filename"), "disconnected:", 13) == 0
                ? BL_QMP_CHARDEV_LOST
                : BL_QMP_CHARDEV_CONNECTED;
        return BL_QMP_CHARDEV_NONE;
}

static bool is_chip(const json_t *device, json_int_t vendor, json_int_t chip)
{
        const json_t *id = json_object_get(device, "id");

        return number(id, "vendor") == vendor && number(id, "device") == chip;
}

static const json_t *root_bus(const json_t *pci)
{
        const json_t *bus;
        size_t i;

        json_array_foreach(pci, i, bus) if (number(bus, "bus") == 0) return bus;
        return NULL;
}

int bl_qmp_free_slot(const json_t *pci)
{
        const json_t *devices = json_object_get(root_bus(pci), "devices"), *device;
        bool used[SLOTS] = {false}, i440fx = false;
        size_t i;

        json_array_foreach(devices, i, device)
        {
                json_int_t slot = number(device, "slot");

                if (slot < 0 || slot >= SLOTS)
                        continue;
                used[slot] = true;
                i440fx = i440fx || (slot == 0 && is_chip(device, VENDOR_INTEL, INTEL_440FX));
        }
        if (!i440fx)
                return -ENODEV;
        for (int slot = SLOTS - 1; slot > 0; slot--)
                if (!used[slot])
                        return slot;
        return 0;
}

static bool is_empty_root_port(const json_t *device)
{
        const json_t *bridge = json_object_get(device, "pci_bridge");

        return (is_chip(device, VENDOR_REDHAT, REDHAT_ROOT_PORT) || is_chip(device, VENDOR_INTEL, INTEL_IOH3420)) &&
               *string(device, "qdev_id") && json_array_size(json_object_get(bridge, "devices")) == 0;
}

const char *bl_qmp_root_port(const json_t *pci, size_t n)
{
        for (size_t b = json_array_size(pci); b > 0; b--) {
                const json_t *devices = json_object_get(json_array_get(pci, b - 1), "devices");

                for (size_t d = json_array_size(devices); d > 0; d--) {
                        const json_t *device = json_array_get(devices, d - 1);

                        if (is_empty_root_port(device) && n-- == 0)
                                return string(device, "qdev_id");
                }
        }
        return NULL;
}
